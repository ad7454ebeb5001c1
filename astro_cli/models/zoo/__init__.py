"""Released checkpoints: which are known, where they lie, their import into one folder and its verification."""
