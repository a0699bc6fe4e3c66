"""Find the largest network of the family `compact` that meets a budget, without training."""

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from itertools import groupby

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.results import Summary
from cifar_cnn.analysis.summary import summarize
from cifar_cnn.models.compact import WIDTHS, channels_of
from cifar_cnn.results import Result
from cifar_cnn.runtime import torch_threads
from cifar_cnn.settings import validate
from cifar_cnn.storage.network import Network


class Design(Result):
    """A member of a family of networks, by the arguments that build it, and its summary."""

    model: str
    model_arg: tuple[str, ...]
    summary: Summary

    @property
    def has_passed(self) -> bool:
        """Whether the budget is met."""
        return self.summary.budget is not None and self.summary.budget.passed


def design(
    budget: Budget | None = None,
    input_size: tuple[int, int] = (32, 32),
    *,
    num_classes: int = 10,
) -> Design:
    """Return the largest member of `compact` that meets a budget, else the smallest member.

    Parameters, mult-adds and memory grow with the width, so that bisection finds it.

    Args:
        budget: the limits; the brief's unless given.
        input_size: (H, W) of the image in pixels, from 16.
        num_classes: outputs of the network.

    Raises:
        ModelError: the family does not take such images.
    """
    budget = budget or Budget()

    @cache
    def summarize_member(width: float) -> Design:
        model_arg = (f"width={width:g}",)
        values = {"model": "compact", "model_arg": model_arg, "input_size": input_size}
        network = Network(validate(values), classes=tuple(map(str, range(num_classes))))
        summary = summarize(network, input_size, budget=budget)
        return Design(model="compact", model_arg=model_arg, summary=summary)

    widths = find_members()
    with torch_threads(1):  # for one image others would only wait
        broken = bisect_left(widths, True, key=lambda width: not summarize_member(width).has_passed)
        return summarize_member(widths[max(broken - 1, 0)])


def find_members() -> Sequence[float]:
    """Return a width for each member of the family: the shortest number that gives its channels."""
    first, last = (round(100 * width) for width in WIDTHS)
    members = groupby((each / 100 for each in range(first, last + 1)), channels_of)
    return [min(widths, key=lambda width: len(f"{width:g}")) for _, widths in members]
