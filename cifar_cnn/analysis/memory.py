"""The receptive fields of a run's tensors, also of those that share memory."""

from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

from cifar_cnn.analysis.calls import tensors_in
from cifar_cnn.analysis.field import Field, IntArray
from cifar_cnn.analysis.layout import reshape
from cifar_cnn.analysis.moves import write_part
from cifar_cnn.analysis.steps import Kind, Outcome, Step, Value


class Memory:
    """The field of each tensor that depends on the image.

    What is written into a tensor in place is seen through every tensor that shares its memory:
    writes are noted, and followed when such a tensor is read. Joining what was written to what was
    there is one more of the run's steps.
    """

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self._values: MutableMapping[Tensor, Value] = WeakIdKeyDictionary()
        self._writes: dict[int, list[tuple[Tensor, Value]]] = {}
        self._followed: MutableMapping[Tensor, int] = WeakIdKeyDictionary()

    def __getitem__(self, tensor: Tensor) -> Value | None:
        """Return the value of a tensor, or None if it does not depend on the image."""
        log = self._writes.get(_memory_of(tensor), ())
        before = self._followed.get(tensor, 0)
        if before < len(log):
            self._followed[tensor] = len(log)
            for view, written in log[before:]:
                self._follow(tensor, view, written)
        return self._values.get(tensor)

    def see_image(self, tree: object) -> bool:
        """Return whether a tensor in the tuples, lists and dicts of `tree` depends on the image."""
        # all are looked up: a write that one shares is noted as a step before the operation's own
        return any([self[tensor] is not None for tensor in tensors_in(tree)])  # noqa: C419

    def field_of(self, leaf: object) -> object:
        """Return the field of a tensor; anything else is returned as it is."""
        if not isinstance(leaf, Tensor):
            return leaf
        value = self[leaf]
        return Field(tuple(leaf.shape)) if value is None else value.field

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        """Record the output of an operation."""
        self._values[tensor] = value
        self._followed[tensor] = len(self._writes.get(_memory_of(tensor), ()))

    def access(self, read: Sequence[Tensor], written: Sequence[Tensor]) -> tuple[Any, Any, Any]:
        """Return the memory that an operation reads and writes, and its weights, as in Step."""
        writes = {storage_of(t): t.untyped_storage().nbytes() // t.element_size() for t in written}
        values = [(tensor, storage_of(tensor), self._values.get(tensor)) for tensor in read]
        reads = (storage for _, storage, value in values if value is not None)
        weights = (t for t, storage, value in values if value is None and storage not in writes)
        return tuple(reads), tuple(writes.items()), tuple(weights)

    def write(self, tensor: Tensor) -> None:
        """Record that an operation wrote a tensor's current value into its memory."""
        log = self._writes.setdefault(_memory_of(tensor), [])
        log.append((tensor.detach(), self._values[tensor]))
        self._followed[tensor] = len(log)

    def _follow(self, tensor: Tensor, view: Tensor, written: Value) -> None:
        """Update a tensor after a write through another tensor that shares its memory."""
        before, shape = self._values.get(tensor), tuple(tensor.shape)
        field, made = None, written.made
        if _hold_the_same(tensor, view):
            field = reshape(written.field, shape)
        elif ((places := _places_in(view, tensor)) >= 0).any():
            old = Field(shape) if before is None else before.field
            field = write_part(old, written.field, places)
            if (places < 0).any():
                inputs = (written,) if before is None else (before, written)
                call = self._steps[written.made].call
                made = len(self._steps)
                self._steps.append(Step("copy", Kind.MOVE, Outcome((field,)), call, inputs))
        if field is not None:
            self._values[tensor] = Value(field, made)


def storage_of(tensor: Tensor) -> StorageWeakRef:
    """Return an identity of a tensor's memory that stays unique after it is freed."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _memory_of(tensor: Tensor) -> int:
    memory: int = tensor.untyped_storage()._cdata  # noqa: SLF001
    return memory


def _hold_the_same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same elements in the same order."""
    if one.storage_offset() != other.storage_offset() or one.numel() != other.numel():
        return False
    is_plain = one.is_contiguous() and other.is_contiguous()
    return is_plain or (one.shape == other.shape and one.stride() == other.stride())


def _places_in(view: Tensor, tensor: Tensor) -> IntArray:
    """Return, for each element of a tensor, its number in a view of the same memory, or -1."""
    with _disable_current_modes():
        memory = torch.full((tensor.untyped_storage().nbytes() // tensor.element_size(),), -1)
        mine, theirs = (
            memory.as_strided(each.shape, each.stride(), each.storage_offset())
            for each in (tensor, view)
        )
        theirs.copy_(torch.arange(view.numel()).reshape(view.shape))
        places: IntArray = mine.numpy()
    return places
