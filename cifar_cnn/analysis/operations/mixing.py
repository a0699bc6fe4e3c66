"""Operations that mix along dimensions: reductions, softmax, products of matrices, attention."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from cifar_cnn.analysis.field import Field, hull
from cifar_cnn.analysis.field_layout import permute, reduce, reshape
from cifar_cnn.analysis.graph import leaves
from cifar_cnn.analysis.operations.elementwise import pointwise
from cifar_cnn.analysis.operations.entry import Entry, Kind, Outcome, Shapes, UnsupportedError

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
    **_: object,
) -> Outcome:
    """Reduce over `dim`, or over everything: mean, sum, maximum and their like."""
    if isinstance(dim, Field):  # the maximum of two tensors
        return pointwise(out, field, dim)
    over = axis if dim is None or isinstance(dim, bool) else dim  # std(False): of everything
    dims = range(len(field.shape)) if over is None else _dims(over)
    reduced = reduce(field, dims)
    return Outcome(tuple(reshape(reduced, shape) for shape in out))


def averaged(func: Func, *args: Any, **kwargs: Any) -> Any:
    """Average what `func` would reduce, with a result of the same form."""
    like = func(*args, **kwargs)
    first = like if isinstance(like, Tensor) else like[0]
    others = [arg for arg in args[1:] if isinstance(arg, Tensor)]
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
    out: Shapes, field: Field, _: object, dim: int = -1, *__: object, **___: object
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


def linear(out: Shapes, field: Field, *_: object, **__: object) -> Outcome:
    """Mix the last dimension."""
    return Outcome((hull(out[0], [reduce(field, [-1])]),))


def averaged_linear(_: Func, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Average the last dimension, whatever its size."""
    return x.mean(-1, keepdim=True).expand(*x.shape[:-1], weight.shape[0])


def matmul(out: Shapes, left: Field, right: Field, **_: object) -> Outcome:
    """Multiply matrices in the last two dimensions."""
    if min(len(left.shape), len(right.shape)) < 2:
        raise UnsupportedError("with a vector")
    return Outcome((hull(out[0], [reduce(left, [-1]), reduce(right, [-2])]),))


def added_matmul(out: Shapes, added: Field, left: Field, right: Field, **_: object) -> Outcome:
    """Add to a product of matrices."""
    product = matmul(out, left, right).fields
    return Outcome((hull(out[0], [added, *product]),))


def scaled_product(func: Func, *args: Any, **kwargs: Any) -> Tensor:
    """Multiply, with constants all ones, and keep the numbers from growing."""
    product: Tensor = func(*args, **kwargs)
    return product / product.detach().max()


def attention(
    out: Shapes, query: Field, key: Field, value: Field, *rest: object, **named: object
) -> Outcome:
    """Attend: each query mixes the values of all keys."""
    mask = [leaf for leaf in leaves((rest, named)) if isinstance(leaf, Field)]
    scores = [reduce(query, [-1]), reduce(key, [-1, -2]), *(reduce(m, [-1]) for m in mask)]
    return Outcome((hull(out[0], [*scores, reduce(value, [-2])]),))


def averaged_attention(
    _: Func, query: Tensor, key: Tensor, value: Tensor, *__: object, **___: object
) -> Tensor:
    """Average all keys and values into each query's place."""
    shape = (*query.shape[:-1], value.shape[-1])
    scores = query.mean(-1, keepdim=True) + key.mean((-1, -2), keepdim=True)
    return (scores + value.mean(-2, keepdim=True)).expand(shape)


def multi_head_attention(
    out: Shapes, query: Field, key: Field, value: Field, *_: object, **__: object
) -> Outcome:
    """Attend from each place of `query` (L, N, E) to all of `key` and `value` (S, N, E)."""
    mixed = hull(out[0], [reduce(query, [-1]), reduce(key, [0, -1]), reduce(value, [0, -1])])
    everything = reduce(mixed, range(len(out[0])), keep=False)
    return Outcome((mixed, *(hull(shape, [everything]) for shape in out[1:])))


def averaged_multi_head_attention(
    _: Func, query: Tensor, key: Tensor, value: Tensor, *__: object, **___: object
) -> tuple[Tensor, None]:
    """Average all keys and values into each query's place; sequences are the first dimension."""
    mixed = query.mean(-1, keepdim=True) + (key + value).mean((0, -1), keepdim=True)
    return mixed.expand(query.shape), None


def einsum(out: Shapes, equation: str, *operands: Field | Sequence[Field]) -> Outcome:
    """Sum products over the letters that the output lacks."""
    fields = [leaf for leaf in leaves(operands) if isinstance(leaf, Field)]
    sources, arrow, target = equation.replace(" ", "").partition("->")
    if not arrow or "." in equation:
        raise UnsupportedError(f"in the form {equation!r}")
    terms = [
        _as_letters(field, letters, target)
        for field, letters in zip(fields, sources.split(","), strict=True)
    ]
    return Outcome((hull(out[0], terms),))


def _as_letters(field: Field, letters: str, target: str) -> Field:
    kept = [letter for letter in letters if letter in target]
    dims = [d for d, letter in enumerate(letters) if letter not in target]
    reduced = reduce(field, dims, keep=False)
    ordered = permute(reduced, [kept.index(letter) for letter in target if letter in kept])
    sizes = dict(zip(letters, field.shape, strict=True))
    return reshape(ordered, [sizes[c] if c in kept else 1 for c in target])


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
    "linear": Entry(Kind.MIXING, linear, averaged_linear, weighted=True),
    **dict.fromkeys(("matmul", "bmm", "mm"), Entry(Kind.MIXING, matmul, scaled_product)),
    **dict.fromkeys(("addmm", "baddbmm"), Entry(Kind.MIXING, added_matmul, scaled_product)),
    "einsum": Entry(Kind.MIXING, einsum, scaled_product),
    "scaled_dot_product_attention": Entry(Kind.MIXING, attention, averaged_attention),
    "multi_head_attention_forward": Entry(
        Kind.MIXING, multi_head_attention, averaged_multi_head_attention
    ),
}
