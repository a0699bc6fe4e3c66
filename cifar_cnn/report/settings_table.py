"""All settings with the values of the recipes, for people."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cifar_cnn.recipes import RECIPES, read_recipe
from cifar_cnn.report.console import NARROW
from cifar_cnn.settings import Settings


def show_settings(console: Console) -> None:
    """Print each setting, what the recipes make of it, and what it means."""
    recipes = {name: read_recipe(name) for name in RECIPES}
    table = Table("setting", box=None, pad_edge=False)
    for name in recipes:
        table.add_column(name, justify="right", overflow="fold")
    narrow = console.width < NARROW
    if not narrow:
        table.add_column("meaning", overflow="fold")
    for name, field in Settings.model_fields.items():
        if name == "recipe":
            continue
        cells = [setting_text(recipe.get(name, field.default)) for recipe in recipes.values()]
        meaning = [] if narrow else [escape(field.description or "")]
        table.add_row(name, *cells, *meaning)
    console.print(table)


def setting_text(value: object) -> str:
    """Return a setting's value as people read it: a size as 32x48, none as a dash."""
    if isinstance(value, tuple):
        between = ", " if any(isinstance(each, str) for each in value) else "x"
        return between.join(map(str, value)) or "–"
    return "–" if value is None else str(value)
