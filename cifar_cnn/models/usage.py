"""The recipe and the measured accuracy of each built-in network."""

from dataclasses import dataclass

from cifar_cnn.results import Result, Share


class Reached(Result):
    """Mean test accuracy on CIFAR-10, as JPEG, of n runs after their last epoch."""

    epochs: int
    accuracy: Share
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
    "baseline": Usage(
        "tuned",
        (Reached(epochs=20, accuracy=0.8369, n=1), Reached(epochs=100, accuracy=0.8568, n=1)),
    ),
    "compact": Usage(
        "best", (Reached(epochs=10, accuracy=0.8808, n=3), Reached(epochs=30, accuracy=0.8956, n=3))
    ),
}
