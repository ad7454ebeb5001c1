"""Sizes that make a packaged recipe's network tiny. A helper of tests."""

TINY = ["model.dim=24", "model.ffn_dim=32", "model.num_heads=2", "model.num_layers=2", "model.freq_dim=8"]


def bare_rl_recipe(objective: str, experience: str, group: int = 4) -> str:
    """TOML of one epoch of RL on one prompt that inherits no method: the objective's options and the experience's, as
    lines of inline tables.
    """
    return "\n".join(
        (
            'extends = "base/shapes.toml"',
            'name = "bare"',
            'command = "rl"',
            'order = ["nft"]',
            "[lora]",
            "rank = 4",
            "alpha = 4",
            "[stages.nft]",
            "steps = 1",
            f"batch = {group}",
            f'objective = {{ kind = "nft"{objective} }}',
            "optim.student = { lr = 1e-3 }",
            f"experience = {{ prompts = 1, group = {group}, {experience} }}",
            "",
        )
    )
