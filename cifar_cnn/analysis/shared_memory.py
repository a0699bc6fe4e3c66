"""Which tensors of a run share memory, and which of them a write in place has outdated."""

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from cifar_cnn.analysis.graph import Operation
from cifar_cnn.analysis.operations import OPERATIONS
from cifar_cnn.errors import ModelError


class Renewal(NamedTuple):
    """The operation that gives an outdated tensor what was written into its memory."""

    op: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    written_by: Operation


class SharedMemory:
    """Notes views and writes of a run, in the order in which they happen.

    Args:
        is_replaced: whether other operations run instead of the network's own: they may copy where
            those share, so that what shares is known from the operations alone.
    """

    def __init__(self, *, is_replaced: bool) -> None:
        self._is_replaced = is_replaced
        self._memories: MutableMapping[Tensor, object] = WeakIdKeyDictionary()
        self._parts: MutableMapping[Tensor, tuple[Tensor, Any]] = WeakIdKeyDictionary()
        self._stale: MutableMapping[Tensor, tuple[Tensor, Operation]] = WeakIdKeyDictionary()

    def is_stale(self, tensor: Tensor) -> bool:
        """Whether something was written into the tensor's memory through another."""
        return tensor in self._stale

    def assign(self, whole: Tensor, part: object) -> None:
        """`x[part] += y` assigns to x the part that it wrote into: x is not outdated by that."""
        if self._stale.get(whole, (None,))[0] is part:
            del self._stale[whole]

    def made(self, op: str, func: Callable[..., Any], args: Any, results: list[Tensor]) -> None:
        """Note whether an operation's results share the memory of its first argument."""
        shares = writes_in_place(func) or (op in OPERATIONS and OPERATIONS[op].shares)
        if op == "getitem":
            shares = _is_view(args[1])
            if shares:
                self._parts[results[0]] = args[0], args[1]
        for result in results if shares else ():
            self._memories[result] = self._memory_of(args[0])

    def wrote(self, written: Tensor, operation: Operation, tensors: Iterable[Tensor]) -> None:
        """Note which of the run's tensors `operation`, which wrote into one, has outdated."""
        for tensor in tensors:
            if tensor is not written and self._memory_of(tensor) == self._memory_of(written):
                self._stale[tensor] = written, operation

    def renew(self, tensor: Tensor) -> Renewal:
        """Return what follows a write, through another tensor, into the memory of this one.

        Raises:
            ModelError: it went to a part of it that is not known.
        """
        written, operation = self._stale.pop(tensor)
        whole, index = self._parts.get(written, (None, None))
        if whole is tensor:
            return Renewal("setitem", Tensor.__setitem__, (tensor, index, written), operation)
        in_order = self._is_replaced or (tensor.is_contiguous() and written.is_contiguous())
        if tensor.numel() == written.numel() and in_order:
            return Renewal("view", Tensor.view, (written, tuple(tensor.shape)), operation)
        raise ModelError(
            f"{operation.op!r} {operation.place} writes into a part of a tensor in place: "
            "write it without the trailing underscore, on a new tensor"
        )

    def _memory_of(self, tensor: Tensor) -> object:
        """Return what tensors that share memory have in common."""
        if not self._is_replaced:
            return tensor.untyped_storage()._cdata  # noqa: SLF001
        return self._memories.setdefault(tensor, object())


def writes_in_place(func: Callable[..., Any]) -> bool:
    """Whether a function writes into its first argument."""
    name = func.__name__
    if name.startswith("__"):
        return name.startswith("__i") or name == "__setitem__"
    return name.endswith("_")


def _is_view(index: object) -> bool:
    """Whether indexing so gives a view: with lists, it copies."""
    items = index if isinstance(index, tuple) else (index,)
    return not any(isinstance(item, list | Tensor) for item in items)
