"""Numbers that are known without running anything: those of indices, and of masks in indices."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from cifar_cnn.analysis.graph import Value, leaves

_MAKERS: dict[str, Callable[..., NDArray[Any]]] = {
    "tensor": np.asarray,
    "arange": np.arange,
}
"""Operations whose numbers are known from their arguments."""

MASKS = (torch.bool, torch.uint8)
"""What torch takes for a mask where it is an index."""


def numbers_in(tensor: Tensor) -> NDArray[Any] | None:
    """Return the numbers of an index, if they are there."""
    is_there = tensor.device.type == "cpu" and not isinstance(tensor, FakeTensor)
    is_index = tensor.dim() <= 1 and not tensor.is_floating_point()
    return _of_dtype(np.asarray(tensor.tolist()), tensor) if is_there and is_index else None


def numbers_made(op: str, args: tuple[Any, ...], made: Tensor) -> NDArray[Any] | None:
    """Return the numbers of a tensor that is made from numbers."""
    has_tensors = any(isinstance(leaf, Tensor) for leaf in leaves(args))
    known = op in _MAKERS and args and not has_tensors
    return _of_dtype(_MAKERS[op](*args), made) if known else None


def plain_index(index: Any, shape: Sequence[int], value_of: Callable[[object], object]) -> Any:
    """Return the index with integers and lists of them for arrays, tensors and masks, if known.

    A mask of one dimension becomes the list of what it keeps.

    Raises:
        IndexError: a list or a mask does not fit a tensor of `shape`; torch's fake tensors let
            that pass.
    """
    items = index if isinstance(index, tuple) else (index,)
    known = [_numbers_of(item, value_of) for item in items]
    widths = [_width(*pair) for pair in zip(items, known, strict=True)]
    plain = []
    dim = 0
    for at, (item, numbers) in enumerate(zip(items, known, strict=True)):
        if item is Ellipsis:
            dim = len(shape) - sum(widths[at:])
        if numbers is None or dim >= len(shape):
            plain.append(item)
        else:
            plain.append(_fitted(numbers, dim, shape[dim]))
        dim += widths[at]
    return tuple(plain) if isinstance(index, tuple) else plain[0]


def _numbers_of(item: Any, value_of: Callable[[object], object]) -> NDArray[Any] | None:
    if isinstance(item, Tensor):
        value = value_of(item)
        assert isinstance(value, Value)
        return value.numbers
    if isinstance(item, np.ndarray):
        return item.astype(bool) if item.dtype == np.uint8 else item
    return _listed(item) if isinstance(item, np.integer | list | tuple | range) else None


def _width(item: Any, numbers: NDArray[Any] | None) -> int:
    """Return how many dimensions an item of an index takes."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    if numbers is not None:
        return numbers.ndim if numbers.dtype == bool else 1
    is_mask = isinstance(item, Tensor) and item.dtype in MASKS
    return item.dim() if is_mask else 1


def _fitted(numbers: NDArray[Any], dim: int, size: int) -> Any:
    if numbers.dtype == bool:
        if numbers.ndim != 1:
            return numbers.tolist()
        if len(numbers) != size:
            raise IndexError(f"a mask of {len(numbers)} does not fit dimension {dim} of {size}")
        return np.flatnonzero(numbers).tolist()
    for number in numbers[(numbers < -size) | (numbers >= size)].flat:
        raise IndexError(f"index {number} is out of bounds for dimension {dim} with size {size}")
    return numbers.tolist()


def _listed(item: Any) -> NDArray[Any] | None:
    numbers = list(item) if isinstance(item, range) else item
    are_known = all(isinstance(leaf, int | np.integer | np.bool_) for leaf in leaves(numbers))
    return np.asarray(numbers) if are_known else None


def _of_dtype(numbers: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Return the numbers as booleans where torch takes the tensor for a mask."""
    return numbers.astype(bool) if tensor.dtype in MASKS else numbers
