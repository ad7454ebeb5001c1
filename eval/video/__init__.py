"""Video files as streams of frames, and which frames a protocol takes. Scores nothing."""
