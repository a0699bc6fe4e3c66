"""Recipes: settings that go together, each a TOML file here that says how it differs."""

import tomllib
from importlib.resources import files
from typing import Any

from cifar_cnn.errors import SettingsError, did_you_mean

DEFAULT_RECIPE = "tuned"
DEFAULT_EPOCHS = 20
RECIPE_FOLDER = files(__name__)
RECIPES = tuple(sorted(f.name[:-5] for f in RECIPE_FOLDER.iterdir() if f.name.endswith(".toml")))


def read_recipe(name: str, epochs: Any = None, width: float = 1.0) -> dict[str, Any]:
    """Return the settings that the recipe sets for a run of so many epochs, or of the default's.

    What a recipe has under `from_epochs.N` applies to runs of N epochs and more. What it has under
    `below_width.W` goes before that, for networks of a smaller width.

    Raises:
        SettingsError: there is no such recipe.
    """
    if name not in RECIPES:
        hint = did_you_mean(name, RECIPES)
        raise SettingsError(f"unknown recipe {name!r}{hint}: choose from {', '.join(RECIPES)}")
    recipe = tomllib.loads((RECIPE_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    try:
        length = int(float(epochs))  # "50" and 50.0 are settings too
    except (TypeError, ValueError, OverflowError):  # there is none, or none that will be taken
        length = DEFAULT_EPOCHS
    for least, changes in recipe.pop("from_epochs", {}).items():
        if length >= int(least):
            recipe.update(changes)
    for limit, changes in recipe.pop("below_width", {}).items():
        if width < float(limit):
            recipe.update(changes)
    return recipe
