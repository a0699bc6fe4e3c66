"""Operations that weigh windows: convolutions and padding."""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, Taps, apply_taps, hull
from cifar_cnn.analysis.field_layout import reduce, reshape
from cifar_cnn.analysis.operations.entry import (
    Entry,
    Kind,
    Outcome,
    Shapes,
    Size,
    Window,
    sizes,
)

Func = Callable[..., Any]
RANKS = (1, 2, 3)


def convolution(
    out: Shapes,
    field: Field,
    weight: Field,
    bias: Field | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Outcome:
    """Apply `weight` (out, in / groups, kernel…) at every position."""
    kernel = weight.shape[2:]
    rank = len(kernel)
    strides, dilations = sizes(stride, rank), sizes(dilation, rank)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        pads = [(total // 2, total - total // 2) for total in totals]
    else:
        pads = [(p, p) for p in sizes(0 if isinstance(padding, str) else padding, rank)]
    mixed = mix_channels(field, rank, groups, weight.shape[0])
    reads = [
        taps.window(k, s, p, d)
        for k, s, (p, _), d in zip(kernel, strides, pads, dilations, strict=True)
    ]
    return Outcome((tapped(mixed, reads, out[0]),), map_window(kernel, strides, pads, dilations))


def averaged_convolution(
    func: Func,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Average each group's channels, then each window; all channels of a group are alike."""
    rank = weight.dim() - 2
    ones = x.new_ones(groups, 1, *weight.shape[2:]) / weight[0, 0].numel()
    out = func(_group_means(x, groups, rank), ones, None, stride, padding, dilation, groups)
    return _repeat_channels(out, weight.shape[0] // groups, rank)


def transposed_convolution(  # noqa: PLR0917 - torch's order
    out: Shapes,
    field: Field,
    weight: Field,
    bias: Field | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Outcome:
    """Spread each unit by `weight` (in, out / groups, kernel…)."""
    kernel = weight.shape[2:]
    rank = len(kernel)
    strides, dilations = sizes(stride, rank), sizes(dilation, rank)
    pads = sizes(padding, rank)
    mixed = mix_channels(field, rank, groups, weight.shape[1] * groups)
    reads = [
        taps.transposed(k, s, p, d)
        for k, s, p, d in zip(kernel, strides, pads, dilations, strict=True)
    ]
    window = map_window(kernel, strides, [(p, p) for p in pads], dilations)
    return Outcome((tapped(mixed, reads, out[0]),), window)


def spread_convolution(  # noqa: PLR0917 - torch's order
    func: Func,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Average each group's channels, then spread them evenly over each window."""
    rank = weight.dim() - 2
    ones = x.new_ones(groups, 1, *weight.shape[2:]) / weight[0, 0].numel()
    means = _group_means(x, groups, rank)
    out = func(means, ones, None, stride, padding, output_padding, groups, dilation)
    return _repeat_channels(out, weight.shape[1], rank)


def pad(out: Shapes, field: Field, pad: Sequence[int], *_: object, **__: object) -> Outcome:
    """Put positions around the map: whatever they hold, they count as outside of the image."""
    result = field
    rank = len(field.shape)
    sides = [(0, 0)] * rank
    for i, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        dim = rank - 1 - i
        sides[dim] = (before, after)
        if before or after:
            result = apply_taps(result, dim, taps.strided(-before, 1), out[0][dim])
    vertical, horizontal = sides[-2:] if rank > 1 else ((0, 0), sides[-1])
    return Outcome((result,), Window(padding=(vertical, horizontal)))


def padded_with_nothing(
    _: Func, x: Tensor, pad: Sequence[int], *__: object, **___: object
) -> Tensor:
    """Put nothing around the map."""
    return F.pad(x, list(pad))


def mix_channels(field: Field, rank: int, groups: int, channels: int) -> Field:
    """Return the field after every group of channels is mixed; the map has `rank` dimensions."""
    dim = len(field.shape) - rank - 1
    shape = (*field.shape[:dim], channels, *field.shape[dim + 1 :])
    varies = any(f.low.shape[dim] > 1 for axis in field.axes for f in axis)
    if not varies:
        return Field(shape, field.axes)
    before, after = field.shape[:dim], field.shape[dim + 1 :]
    grouped = reshape(field, (*before, groups, field.shape[dim] // groups, *after))
    mixed = reduce(grouped, [dim + 1])
    return reshape(hull((*before, groups, channels // groups, *after), [mixed]), shape)


def tapped(field: Field, reads: Sequence[Taps], shape: Sequence[int]) -> Field:
    """Return the field after windows along the last dimensions, which leave `shape`."""
    first = len(shape) - len(reads)
    for dim, tap in enumerate(reads, start=first):
        field = apply_taps(field, dim, tap, shape[dim])
    return field


def map_window(
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Window:
    """Return the window as the table shows it; one along a single dimension is no map's."""
    if len(kernel) == 1:
        return Window()
    return Window(
        (kernel[-2], kernel[-1]),
        (stride[-2], stride[-1]),
        (padding[-2], padding[-1]),
        (dilation[-2], dilation[-1]),
    )


def _group_means(x: Tensor, groups: int, rank: int) -> Tensor:
    return x.reshape(*x.shape[: -rank - 1], groups, -1, *x.shape[-rank:]).mean(-rank - 1)


def _repeat_channels(x: Tensor, times: int, rank: int) -> Tensor:
    """Return each channel `times` times; a map of `rank` dimensions lies behind the channels."""
    behind = x.dim() - rank
    repeated = x.unsqueeze(behind).expand(*x.shape[:behind], times, *x.shape[behind:])
    return repeated.flatten(behind - 1, behind)


CONVOLUTION = Entry(Kind.WINDOW, convolution, averaged_convolution, weighted=True)
TRANSPOSED = Entry(Kind.WINDOW, transposed_convolution, spread_convolution, weighted=True)
ENTRIES: dict[str, Entry] = {
    **{f"conv{rank}d": CONVOLUTION for rank in RANKS},
    **{f"conv_transpose{rank}d": TRANSPOSED for rank in RANKS},
    "pad": Entry(Kind.WINDOW, pad, padded_with_nothing),
}
