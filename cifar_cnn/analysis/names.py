"""One name for each operation, however it is spelled in Python."""

from collections.abc import Callable
from typing import Any

_ARITHMETIC = ("add", "sub", "mul", "div", "truediv", "floordiv", "pow", "mod", "matmul")
SYNONYMS = {
    **{f"{form}{op}": op for form in "ri" for op in _ARITHMETIC},
    "concat": "cat",
    "concatenate": "cat",
    "T": "t",
    "mT": "adjoint",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "moveaxis": "movedim",
    "clip": "clamp",
}

_POINTWISE = {
    "arithmetic": """
        abs add addcdiv addcmul ceil clamp clamp_max clamp_min cos div erf exp expm1 floor
        floor_divide floordiv frac hypot lerp log log10 log1p log2 maximum minimum mod mul multiply
        nan_to_num neg negative pos positive pow reciprocal remainder round rsqrt sign sin sqrt
        square sub subtract tan true_divide truediv trunc xlogy
    """,
    "comparisons and choices": """
        and eq ge greater greater_equal gt heaviside invert isfinite isnan le less less_equal
        logical_and logical_not logical_or lt masked_fill ne not_equal or where xor
    """,
    "activations": """
        celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu logit logsigmoid mish
        prelu relu relu6 rrelu selu sigmoid silu softplus softshrink softsign tanh tanhshrink
        threshold
    """,
    "regularizers and normalization, in evaluation mode": """
        alpha_dropout batch_norm dropout dropout1d dropout2d dropout3d feature_alpha_dropout
        feature_dropout local_response_norm
    """,
}
_SAME = """
    alias bfloat16 clone contiguous cpu cuda data detach double float half identity real
    requires_grad to type type_as
"""
_REDUCTIONS = """
    all amax amin any argmax argmin logsumexp max mean median min nanmean prod std sum var
"""
POINTWISE = tuple(" ".join(_POINTWISE.values()).split())
"""Operations that work element by element."""
SAME = tuple(_SAME.split())
"""Operations that leave their first tensor's numbers as they are."""
REDUCTIONS = tuple(_REDUCTIONS.split())
"""Operations that reduce the dimensions they are given, or all."""


def operation_name(func: Callable[..., Any]) -> str:
    """Return the operation's name: without underscores; in-place and attribute forms are alike."""
    name = func.__name__
    if name == "__get__":
        name = func.__self__.__name__  # type: ignore[attr-defined]
    name = name.strip("_") or name
    return SYNONYMS.get(name, name)


WEIGHTED = frozenset(
    {
        *("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "linear"),
        *("batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm"),
    }
)
"""Operations on one map, their first argument; the other tensors are weights."""
