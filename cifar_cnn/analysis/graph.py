"""A network as a graph of operations on tensors."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph; `depends` says whether the image has any part in it.

    It is `learned` where it is a parameter, or made of parameters alone or with constants.
    `numbers` are those in a tensor of whole numbers without part in the image, if they are known.
    """

    shape: tuple[int, ...]
    depends: bool
    learned: bool = False
    numbers: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class Operation:
    """One step of the network: `op` with its arguments, tensors replaced by their Values."""

    name: str
    type: str
    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Value, ...]
    module: str
    source: str
    call: int  # operations of one layer's call share it

    @property
    def inputs(self) -> list[Value]:
        """The tensors it reads that depend on the image."""
        found = leaves((self.args, self.kwargs))
        return [leaf for leaf in found if isinstance(leaf, Value) and leaf.depends]

    @property
    def place(self) -> str:
        """Where the user finds it."""
        return f"in {self.module or 'the network'} ({self.source})"


@dataclass
class Graph:
    """The operations of one run, in order, from the image to the output."""

    image: Value
    operations: list[Operation] = field(default_factory=list)
    output: Value | None = None
    tensors: list[Tensor] = field(default_factory=list)


def convert(tree: Any, change: Callable[..., object], *alike: Any) -> Any:
    """Return the tuples, lists and dicts of `tree` with every other thing in them changed.

    `change` is also given what is at the same place of each of the trees that are `alike`.
    """
    if isinstance(tree, tuple | list):
        items = [convert(item, change, *rest) for item, *rest in zip(tree, *alike, strict=True)]
        return items if isinstance(tree, list) else tuple(items)
    if isinstance(tree, dict):
        return {
            key: convert(item, change, *(other[key] for other in alike))
            for key, item in tree.items()
        }
    return change(tree, *alike)


def leaves(tree: Any) -> list[Any]:
    """Return all that is in the tuples, lists and dicts of `tree`."""
    if isinstance(tree, tuple | list):
        return [leaf for item in tree for leaf in leaves(item)]
    if isinstance(tree, dict):
        return [leaf for item in tree.values() for leaf in leaves(item)]
    return [tree]
