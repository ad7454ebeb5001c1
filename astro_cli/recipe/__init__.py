"""Reading recipes: TOML -> a checked `Recipe`, in two phases.

`read_recipe` checks what the recipe says by itself and imports no torch. `load_recipe` also asks the methods that its
stages name: a stage's objective and advantage are checked against the `Config` class of the module their `kind` names,
and the objective and its source check what is theirs, so a new method needs no change here.
"""

from astro_cli.recipe.checks import check_methods
from astro_cli.recipe.kinds import advantage_class, kinds, objective_class, resolve_kind
from astro_cli.recipe.reading import load_recipe, read_recipe

__all__ = ["advantage_class", "check_methods", "kinds", "load_recipe", "objective_class", "read_recipe", "resolve_kind"]
