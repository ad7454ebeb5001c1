"""Sizes that make a packaged recipe's network tiny. Tests import it; it tests nothing."""

TINY = ["model.dim=24", "model.ffn_dim=32", "model.num_heads=2", "model.num_layers=2", "model.freq_dim=8"]
