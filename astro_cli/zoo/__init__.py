"""Released checkpoints: which are known and where they lie."""
