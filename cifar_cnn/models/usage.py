"""How the built-in networks are trained, and what that comes to: the one place that says so."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reached:
    """Mean test accuracy after the last epoch on CIFAR-10, its images as JPEG.

    Args:
        epochs: of each run.
        accuracy: as a fraction.
        n: runs, which differ in their seed.
    """

    epochs: int
    accuracy: float
    n: int


@dataclass(frozen=True)
class Usage:
    """The recipe that a network was made with, and what it reached."""

    recipe: str
    reached: tuple[Reached, ...]


def made_for(recipe: str) -> str | None:
    """Return the built-in network that a recipe was made for; None for a general one."""
    return next((name for name, usage in USAGE.items() if usage.recipe == recipe), None)


USAGE = {
    "baseline": Usage("tuned", (Reached(20, 0.8369, 1), Reached(100, 0.8568, 1))),
    "compact": Usage("best", (Reached(10, 0.8808, 3), Reached(30, 0.8956, 3))),
}
