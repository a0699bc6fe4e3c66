"""What the shell may complete: names of runs, networks and recipes."""

from pathlib import Path

from cifar_cnn.recipes import RECIPES
from cifar_cnn.training.run_files import SETTINGS

RUNS = Path("runs")
MODELS = ("baseline", "compact")
"""The built-in networks; the registry itself would load torch at every press of the key."""


def complete_model(incomplete: str) -> list[str]:
    """Return the built-in networks that begin so."""
    return [name for name in MODELS if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """Return the recipes that begin so."""
    return [name for name in RECIPES if name.startswith(incomplete)]


def complete_run_name(incomplete: str) -> list[str]:
    """Return the runs in the default folder that begin so."""
    return [path.name for path in _runs() if path.name.startswith(incomplete)]


def complete_run_path(incomplete: str) -> list[str]:
    """Return the directories of the runs in the default folder that begin so."""
    return [path.as_posix() for path in _runs() if path.as_posix().startswith(incomplete)]


def _runs() -> list[Path]:
    return sorted(path.parent for path in RUNS.glob(f"*/{SETTINGS}"))
