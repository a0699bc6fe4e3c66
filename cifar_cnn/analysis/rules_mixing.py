"""What mixing along a dimension, and working element by element, does to a field."""

from collections.abc import Sequence
from typing import Any

from cifar_cnn.analysis.field import Field, hull
from cifar_cnn.analysis.field_layout import permute, reduce, reshape
from cifar_cnn.analysis.names import POINTWISE, REDUCTIONS, SAME
from cifar_cnn.analysis.outcome import Outcome, Rule, Shapes, UnsupportedError


def pointwise(out: Shapes, *args: Any, **kwargs: Any) -> Outcome:
    """Work element by element on tensors that are broadcast to the output's shape."""
    fields = _fields((args, tuple(kwargs.values())))
    return Outcome(tuple(hull(shape, fields) for shape in out))


def same(_: Shapes, field: Field, *__: object, **___: object) -> Outcome:
    """Leave the numbers as they are: copies and conversions, also to another tensor's type."""
    return Outcome((field,))


def spatial_norm(out: Shapes, field: Field, *_: object, **__: object) -> Outcome:
    """Normalize by statistics over space too; by convention its field passes through."""
    return Outcome((hull(out[0], [field]),), spans=True)


def layer_norm(
    out: Shapes, field: Field, normalized_shape: int | Sequence[int], *_: object, **__: object
) -> Outcome:
    """Normalize over the last dimensions; by convention its field passes through."""
    spans = isinstance(normalized_shape, Sequence) and len(normalized_shape) > 1
    return Outcome((hull(out[0], [field]),), spans=spans)


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
    over = axis if dim is None else dim
    dims = range(len(field.shape)) if over is None else _dims(over)
    reduced = reduce(field, dims)
    return Outcome(tuple(reshape(reduced, shape) for shape in out))


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


def spread(out: Shapes, field: Field, dim: int | None = None, *_: object, **__: object) -> Outcome:
    """Mix all units of `dim` into each of them: softmax and its like."""
    if dim is None:
        raise UnsupportedError("without a dim")
    return Outcome((hull(out[0], [reduce(field, [dim])]),))


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


def linear(out: Shapes, field: Field, *_: object, **__: object) -> Outcome:
    """Mix the last dimension."""
    return Outcome((hull(out[0], [reduce(field, [-1])]),))


def matmul(out: Shapes, left: Field, right: Field, **_: object) -> Outcome:
    """Multiply matrices in the last two dimensions."""
    if min(len(left.shape), len(right.shape)) < 2:
        raise UnsupportedError("with a vector")
    return Outcome((hull(out[0], [reduce(left, [-1]), reduce(right, [-2])]),))


def added_matmul(out: Shapes, added: Field, left: Field, right: Field, **_: object) -> Outcome:
    """Add to a product of matrices."""
    product = matmul(out, left, right).fields
    return Outcome((hull(out[0], [added, *product]),))


def attention(
    out: Shapes, query: Field, key: Field, value: Field, *rest: object, **named: object
) -> Outcome:
    """Attend: each query mixes the values of all keys."""
    mask = _fields((rest, tuple(named.values())))
    scores = [reduce(query, [-1]), reduce(key, [-1, -2]), *(reduce(m, [-1]) for m in mask)]
    return Outcome((hull(out[0], [*scores, reduce(value, [-2])]),))


def multi_head_attention(
    out: Shapes, query: Field, key: Field, value: Field, *_: object, **__: object
) -> Outcome:
    """Attend from each place of `query` (L, N, E) to all of `key` and `value` (S, N, E)."""
    mixed = hull(out[0], [reduce(query, [-1]), reduce(key, [0, -1]), reduce(value, [0, -1])])
    everything = reduce(mixed, range(len(out[0])), keep=False)
    return Outcome((mixed, *(hull(shape, [everything]) for shape in out[1:])))


def einsum(out: Shapes, equation: str, *operands: Field | Sequence[Field]) -> Outcome:
    """Sum products over the letters that the output lacks."""
    fields = _fields(operands)
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


def _fields(tree: Any) -> list[Field]:
    if isinstance(tree, Field):
        return [tree]
    if isinstance(tree, tuple | list):
        return [field for item in tree for field in _fields(item)]
    return []


def _dims(dim: int | Sequence[int]) -> Sequence[int]:
    return [dim] if isinstance(dim, int) else dim


MIXING_RULES: dict[str, Rule] = {
    **dict.fromkeys(POINTWISE, pointwise),
    **dict.fromkeys(SAME, same),
    "layer_norm": layer_norm,
    "rms_norm": layer_norm,
    "group_norm": spatial_norm,
    "instance_norm": spatial_norm,
    **dict.fromkeys(REDUCTIONS, reduction),
    "norm": norm,
    "linalg_vector_norm": norm,
    **dict.fromkeys(("softmax", "log_softmax", "softmin"), spread),
    "normalize": normalize,
    "linear": linear,
    **dict.fromkeys(("matmul", "bmm", "mm"), matmul),
    **dict.fromkeys(("addmm", "baddbmm"), added_matmul),
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": multi_head_attention,
    "einsum": einsum,
}
