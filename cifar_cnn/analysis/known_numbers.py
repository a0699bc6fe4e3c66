"""Numbers that are known without running anything: those of indices, and of masks in indices."""

from collections.abc import Callable
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


def plain_index(index: Any, value_of: Callable[[object], object]) -> Any:
    """Return the index with integers and lists of them for arrays, tensors and masks, if known.

    A mask of one dimension becomes the list of what it keeps.
    """
    if isinstance(index, tuple):
        return tuple(_plain(item, value_of) for item in index)
    return _plain(index, value_of)


def _plain(item: Any, value_of: Callable[[object], object]) -> Any:
    if isinstance(item, Tensor):
        value = value_of(item)
        assert isinstance(value, Value)
        numbers = value.numbers
    elif isinstance(item, np.ndarray):
        numbers = item.astype(bool) if item.dtype == np.uint8 else item
    elif isinstance(item, np.integer | list | tuple | range):
        numbers = _listed(item)
    else:
        return item
    if numbers is None:
        return item
    is_mask = numbers.dtype == bool and numbers.ndim == 1
    return (np.flatnonzero(numbers) if is_mask else numbers).tolist()


def _listed(item: Any) -> NDArray[Any] | None:
    numbers = list(item) if isinstance(item, range) else item
    are_known = all(isinstance(leaf, int | np.integer | np.bool) for leaf in leaves(numbers))
    return np.asarray(numbers) if are_known else None


def _of_dtype(numbers: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Return the numbers as booleans where torch takes the tensor for a mask."""
    return numbers.astype(bool) if tensor.dtype in (torch.bool, torch.uint8) else numbers
