"""Operations that reduce or normalize along dimensions: means, norms, softmax and their like."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from cifar_cnn.analysis.field import Field, hull
from cifar_cnn.analysis.field_layout import reduce, reshape
from cifar_cnn.analysis.operations.elementwise import pointwise
from cifar_cnn.analysis.operations.entry import Entry, Kind, Outcome, Shapes

Func = Callable[..., Any]
REDUCTIONS = """
    all amax amin any argmax argmin logsumexp max mean median min nanmean nansum prod std std_mean
    sum var var_mean
"""
"""Operations that reduce the dimensions they are given, or all."""


def reduction(
    out: Shapes,
    field: Field,
    dim: int | Sequence[int] | Field | None = None,
    *rest: object,
    axis: int | Sequence[int] | None = None,
    other: Field | None = None,
    **_: object,
) -> Outcome:
    """Reduce over `dim`, or over everything: mean, sum, maximum and their like."""
    tensor = dim if isinstance(dim, Field) else other
    if tensor is not None:  # the maximum of two tensors
        return pointwise(out, field, tensor)
    # std(False) is of everything
    over = axis if dim is None or isinstance(dim, bool | Field) else dim
    dims = range(len(field.shape)) if over is None else _dims(over)
    reduced = reduce(field, dims)
    return Outcome(tuple(reshape(reduced, shape) for shape in out))


def averaged(func: Func, *args: Any, **kwargs: Any) -> Any:
    """Average what `func` would reduce, with a result of the same form."""
    like = func(*args, **kwargs)
    first = like if isinstance(like, Tensor) else like[0]
    others = [arg for arg in (*args[1:], kwargs.get("other")) if isinstance(arg, Tensor)]
    if others:  # the maximum of two tensors
        return sum(others, start=args[0])
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    everything = dim is None or isinstance(dim, bool)
    mean = args[0].mean() if everything else args[0].mean(dim)
    reshaped = mean.reshape(first.shape)
    return reshaped if isinstance(like, Tensor) else type(like)((reshaped, *like[1:]))


def norm(
    out: Shapes,
    field: Field,
    p: object = 2,
    dim: int | Sequence[int] | None = None,
    *_: object,
    **__: object,
) -> Outcome:
    """Take the p-norm over `dim`."""
    return reduction(out, field, dim)


def averaged_norm(
    _: Func,
    x: Tensor,
    p: Any = 2,
    dim: Any = None,
    keepdim: bool = False,  # noqa: FBT001, FBT002
    **__: object,
) -> Tensor:
    """Average what a norm is taken of."""
    return x.mean() if dim is None else x.mean(dim, keepdim)


def spread(out: Shapes, field: Field, dim: int | None = None, *_: object, **__: object) -> Outcome:
    """Mix all units of `dim` into each of them: softmax and its like."""
    if dim is None:
        dim = implicit_dim(len(field.shape))
    return Outcome((hull(out[0], [reduce(field, [dim])]),))


def implicit_dim(rank: int) -> int:
    """Return the dimension that torch takes a softmax over where none is given."""
    return 0 if rank in {0, 1, 3} else 1


def averaged_spread(
    _: Func, x: Tensor, dim: int | None = None, *__: object, **___: object
) -> Tensor:
    """Average `dim` into each of its units."""
    dim = implicit_dim(x.dim()) if dim is None else dim
    return x.mean(dim, keepdim=True).expand(x.shape)


def normalize(
    out: Shapes,
    field: Field,
    p: object = 2.0,
    dim: int = 1,
    *_: object,
    **__: object,
) -> Outcome:
    """Divide by the p-norm over `dim`."""
    return spread(out, field, dim)


def averaged_normalize(
    func: Func, x: Tensor, p: float = 2.0, dim: int = 1, *_: object, **__: object
) -> Tensor:
    """Average `dim` into each of its units."""
    return averaged_spread(func, x, dim)


def largest(
    out: Shapes, field: Field, k: object, dim: int = -1, *__: object, **___: object
) -> Outcome:
    """Choose units of `dim`, each from all of them."""
    chosen = hull(out[0], [reduce(field, [dim])])
    return Outcome((chosen,) * len(out))


def averaged_largest(func: Func, x: Tensor, k: int, dim: int = -1, *rest: Any, **named: Any) -> Any:
    """Average `dim` into each unit that is chosen."""
    like = func(x, k, dim, *rest, **named)
    return type(like)((x.mean(dim, keepdim=True).expand(like[0].shape), like[1]))


def similarity(out: Shapes, x1: Field, x2: Field, dim: int = 1, eps: float = 1e-8) -> Outcome:
    """Multiply two tensors and add along `dim`, over their norms."""
    shape = np.broadcast_shapes(x1.shape, x2.shape)
    together = hull(shape, [x1, x2])
    return Outcome((reduce(together, [dim], keep=False),))


def averaged_similarity(_: Func, x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Average both along `dim`."""
    return (x1 + x2).mean(dim)


def _dims(dim: int | Sequence[int]) -> Sequence[int]:
    return [dim] if isinstance(dim, int) else dim


ENTRIES: dict[str, Entry] = {
    **dict.fromkeys(REDUCTIONS.split(), Entry(Kind.MIXING, reduction, averaged)),
    **dict.fromkeys(("norm", "linalg_vector_norm"), Entry(Kind.MIXING, norm, averaged_norm)),
    **dict.fromkeys(
        ("softmax", "log_softmax", "softmin"), Entry(Kind.MIXING, spread, averaged_spread)
    ),
    "normalize": Entry(Kind.MIXING, normalize, averaged_normalize),
    "topk": Entry(Kind.MIXING, largest, averaged_largest),
    "cosine_similarity": Entry(Kind.MIXING, similarity, averaged_similarity),
}
