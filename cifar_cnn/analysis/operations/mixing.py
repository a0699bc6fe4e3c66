"""Operations that mix by products: linear layers, products of matrices, attention."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from cifar_cnn.analysis.field import Field, hull
from cifar_cnn.analysis.field_layout import permute, reduce, reshape
from cifar_cnn.analysis.graph import leaves
from cifar_cnn.analysis.operations.entry import Entry, Kind, Outcome, Shapes, UnsupportedError

Func = Callable[..., Any]


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


ENTRIES: dict[str, Entry] = {
    "linear": Entry(Kind.MIXING, linear, averaged_linear, weighted=True),
    **dict.fromkeys(("matmul", "bmm", "mm"), Entry(Kind.MIXING, matmul, scaled_product)),
    **dict.fromkeys(("addmm", "baddbmm"), Entry(Kind.MIXING, added_matmul, scaled_product)),
    "einsum": Entry(Kind.MIXING, einsum, scaled_product),
    "scaled_dot_product_attention": Entry(Kind.MIXING, attention, averaged_attention),
    "multi_head_attention_forward": Entry(
        Kind.MIXING, multi_head_attention, averaged_multi_head_attention
    ),
}
