"""What the shell may complete: names of runs, networks and recipes. None of it needs torch."""

from cifar_cnn.recipes import RECIPES
from cifar_cnn.settings.fields import MODELS
from cifar_cnn.training.naming import RUNS
from cifar_cnn.training.run_files import SETTINGS


def complete_model(incomplete: str) -> list[str]:
    """Return the built-in networks that begin so."""
    return [name for name in MODELS if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """Return the recipes that begin so."""
    return [name for name in RECIPES if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Return the runs in the default folder whose name begins so, or whose path does."""
    runs = sorted(path.parent for path in RUNS.glob(f"*/{SETTINGS}"))
    names = [run.name for run in runs if run.name.startswith(incomplete)]
    return names or [run.as_posix() for run in runs if run.as_posix().startswith(incomplete)]
