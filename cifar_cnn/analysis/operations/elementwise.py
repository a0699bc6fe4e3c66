"""Operations that work element by element, normalization in evaluation mode among them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cifar_cnn.analysis.field import Field, hull
from cifar_cnn.analysis.graph import leaves
from cifar_cnn.analysis.operations.entry import Entry, Kind, Outcome, Shapes

WORDS = {
    "arithmetic": """
        abs acos acosh add addcdiv addcmul asin asinh atan atan2 atanh ceil clamp clamp_max
        clamp_min cos cosh div erf erfc exp exp2 expm1 floor floor_divide floordiv frac hypot lerp
        log log10 log1p log2 logaddexp logaddexp2 maximum minimum mod mul multiply nan_to_num neg
        negative pos positive pow reciprocal remainder round rsqrt sign sin sinc sinh sqrt square
        sub subtract tan true_divide truediv trunc xlogy
    """,
    "comparisons and choices": """
        and eq ge greater greater_equal gt heaviside invert isfinite isnan le less less_equal
        logical_and logical_not logical_or lt masked_fill ne not_equal or where xor
    """,
    "activations": """
        celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu logit logsigmoid mish
        relu relu6 rrelu selu sigmoid silu softplus softshrink softsign tanh tanhshrink threshold
    """,
    "regularizers": """
        alpha_dropout dropout dropout1d dropout2d dropout3d feature_alpha_dropout feature_dropout
    """,
}
SAME = """
    alias bfloat16 contiguous cpu cuda data detach double float half identity real
    to type type_as
"""
"""Operations that leave their first tensor's numbers as they are."""


def pointwise(out: Shapes, *args: Any, **kwargs: Any) -> Outcome:
    """Work element by element on tensors that are broadcast to the output's shape."""
    fields = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Field)]
    return Outcome(tuple(hull(shape, fields) for shape in out))


def added(_: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Add all tensors that the image has a part in."""
    tensors = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    reached = [tensor for tensor in tensors if tensor.requires_grad] or tensors[:1]
    total = sum(reached[1:], start=reached[0]) if len(reached) > 1 else reached[0].clone()
    shapes = [tensor.shape for tensor in tensors]
    shape = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    return total if total.shape == shape else total.expand(shape)


def same(_: Shapes, field: Field, *__: object, **___: object) -> Outcome:
    """Leave the numbers as they are: copies and conversions, also to another tensor's type."""
    return Outcome((field,))


def kept(_: Any, x: Tensor, *__: object, **___: object) -> Tensor:
    """Keep the numbers in the type that they have."""
    return x.contiguous()


def through(out: Shapes, field: Field, *_: object, **__: object) -> Outcome:
    """Let the field through."""
    return Outcome((hull(out[0], [field]),))


def copied(_: Any, x: Tensor, *__: object, **___: object) -> Tensor:
    """Let the map through."""
    return x.clone()


def spatial_norm(out: Shapes, field: Field, *_: object, **__: object) -> Outcome:
    """Normalize by statistics over space too; by convention its field passes through."""
    return Outcome((hull(out[0], [field]),), spans=True)


def layer_norm(
    out: Shapes, field: Field, normalized_shape: int | Sequence[int], *_: object, **__: object
) -> Outcome:
    """Normalize over the last dimensions; by convention its field passes through."""
    spans = isinstance(normalized_shape, Sequence) and len(normalized_shape) > 1
    return Outcome((hull(out[0], [field]),), spans=spans)


POINTWISE = Entry(Kind.ELEMENT_WISE, pointwise, added)
ENTRIES: dict[str, Entry] = {
    **dict.fromkeys(" ".join(WORDS.values()).split(), POINTWISE),
    **dict.fromkeys(SAME.split(), Entry(Kind.ELEMENT_WISE, same, kept, shares=True)),
    "clone": Entry(Kind.ELEMENT_WISE, same, copied),
    "requires_grad": Entry(Kind.ELEMENT_WISE, same),
    "prelu": Entry(Kind.ELEMENT_WISE, through, copied, weighted=True),
    "local_response_norm": Entry(Kind.NORMALIZATION, through, copied),
    "batch_norm": Entry(Kind.NORMALIZATION, through, copied, weighted=True),
    "layer_norm": Entry(Kind.NORMALIZATION, layer_norm, copied, weighted=True),
    "rms_norm": Entry(Kind.NORMALIZATION, layer_norm, copied, weighted=True),
    "group_norm": Entry(Kind.NORMALIZATION, spatial_norm, copied, weighted=True),
    "instance_norm": Entry(Kind.NORMALIZATION, spatial_norm, copied, weighted=True),
}
