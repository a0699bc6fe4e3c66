"""The receptive fields of a run's tensors, also of those that share memory."""

from collections.abc import Callable, MutableMapping
from contextlib import suppress

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from cifar_cnn.analysis.field import nothing
from cifar_cnn.analysis.layout import reshape
from cifar_cnn.analysis.moves import DisjointError, locate_view
from cifar_cnn.analysis.steps import Kind, Outcome, Step, Value
from cifar_cnn.errors import ModelError


class Memory:
    """The field of each tensor that depends on the image.

    What is written into a tensor in place is seen through every tensor that shares its memory:
    writes are noted, and followed when such a tensor is read. Joining what was written to what was
    there is one more of the run's steps. `place` says where the network is at work.
    """

    def __init__(self, steps: list[Step], place: Callable[[], str]) -> None:
        self._steps, self._place = steps, place
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

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        """Record the output of an operation."""
        self._values[tensor] = value
        self._followed[tensor] = len(self._writes.get(_memory_of(tensor), ()))

    def write(self, tensor: Tensor) -> None:
        """Record that an operation wrote a tensor's current value into its memory."""
        log = self._writes.setdefault(_memory_of(tensor), [])
        log.append((tensor.detach(), self._values[tensor]))
        self._followed[tensor] = len(log)

    def _follow(self, tensor: Tensor, view: Tensor, written: Value) -> None:
        """Update a tensor after a write through another tensor that shares its memory."""
        before, shape = self._values.get(tensor), tuple(tensor.shape)
        if tensor.is_contiguous() and view.is_contiguous() and tensor.numel() == view.numel():
            self._values[tensor] = Value(reshape(written.field, shape), written.made)
            return
        call = self._steps[written.made].call
        try:
            with suppress(ValueError):
                whole = locate_view(tensor, view.shape, _strides(view), int(view.storage_offset()))
                self._values[tensor] = Value(whole.read(written.field), written.made)
                return
            part = locate_view(view, shape, _strides(tensor), int(tensor.storage_offset()))
        except DisjointError:
            return
        except ValueError:
            raise ModelError(
                f"{call.function!r} {self._place()} writes into a part of a tensor in place: "
                "write it without the trailing underscore, on a new tensor"
            ) from None
        old = nothing(shape) if before is None else before.field
        field = part.write(old, written.field)
        inputs = (written,) if before is None else (before, written)
        self._steps.append(Step("copy", Kind.MOVE, Outcome((field,)), call, inputs))
        self._values[tensor] = Value(field, len(self._steps) - 1)


def _memory_of(tensor: Tensor) -> int:
    memory: int = tensor.untyped_storage()._cdata  # noqa: SLF001
    return memory


def _strides(tensor: Tensor) -> list[int]:
    """Return the strides of a tensor; 0 where they say nothing."""
    return [s if n > 1 else 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True)]
