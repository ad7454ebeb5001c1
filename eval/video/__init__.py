"""Which frames of a video a protocol takes."""
