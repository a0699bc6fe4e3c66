"""Operations that read windows: convolutions, pooling, padding."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
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
    return Outcome((_tapped(mixed, reads, out[0]),), _window(kernel, strides, pads, dilations))


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
    window = _window(kernel, strides, [(p, p) for p in pads], dilations)
    return Outcome((_tapped(mixed, reads, out[0]),), window)


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


def max_pool(
    out: Shapes,
    field: Field,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,  # noqa: FBT001, FBT002
    return_indices: bool = False,  # noqa: FBT001, FBT002
) -> Outcome:
    """Take the maximum of each window."""
    return _pool(out, field, kernel_size, stride, padding, dilation)


def averaged_max_pool(
    _: Func,
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,  # noqa: FBT001, FBT002
    return_indices: bool = False,  # noqa: FBT001, FBT002
) -> Any:
    """Average each window of a maximum's."""
    rank = x.dim() - 2
    pool: Func = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    like = pool(x.detach(), kernel_size, stride, padding, dilation, ceil_mode)
    kernel = sizes(kernel_size, rank)
    strides = kernel if not stride else sizes(stride, rank)
    ones = x.new_ones(x.shape[1], 1, *kernel) / sum(kernel)
    beyond = F.pad(x, [0, max(strides)] * rank)  # what ceil_mode reads beyond the map is nothing
    out = convolve(beyond, ones, None, strides, padding, dilation, x.shape[1])
    for dim, size in enumerate(like.shape[2:], start=2):
        out = out.narrow(dim, 0, size)
    return (out, torch.zeros_like(out, dtype=torch.long)) if return_indices else out


def max_unpool(
    out: Shapes,
    field: Field,
    indices: Field,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: object = None,
) -> Outcome:
    """Put each unit at one place of its window, which only the image decides."""
    rank = len(out[0]) - 2
    kernel, pads = sizes(kernel_size, rank), sizes(padding, rank)
    strides = kernel if not stride else sizes(stride, rank)
    reads = [taps.transposed(k, s, p, 1) for k, s, p in zip(kernel, strides, pads, strict=True)]
    return Outcome((_tapped(hull(field.shape, [field, indices]), reads, out[0]),))


def spread_unpool(
    func: Func,
    x: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Any = None,
) -> Tensor:
    """Put each unit at all places of its window."""
    like = func(x.detach(), indices, kernel_size, stride, padding, output_size)
    rank = x.dim() - 2
    spread = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    kernel = sizes(kernel_size, rank)
    ones = x.new_ones(x.shape[1], 1, *kernel)
    out = spread(x, ones, None, stride or kernel, padding, groups=x.shape[1])
    beyond = [n for have, want in zip(out.shape, like.shape, strict=True) for n in (want - have, 0)]
    return F.pad(out, beyond[:3:-1])


def avg_pool(
    out: Shapes,
    field: Field,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    *_: object,
    **__: object,
) -> Outcome:
    """Take the mean of each window; one window over the whole map is global pooling."""
    rank = len(out[0]) - 2
    kernel, pads = sizes(kernel_size, rank), sizes(padding, rank)
    covered = [
        d
        for d, k, p in zip(range(2, rank + 2), kernel, pads, strict=True)
        if out[0][d] == 1 < field.shape[d] <= k - p
    ]
    outcome = _pool(out, field, kernel_size, stride, padding, 1)
    if len(covered) < rank:
        return outcome
    return Outcome((reduce(field, covered),) * len(out), outcome.window)


def lp_pool(
    out: Shapes,
    field: Field,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,  # noqa: FBT001, FBT002
) -> Outcome:
    """Take the p-norm of each window."""
    return _pool(out, field, kernel_size, stride, 0, 1)


def averaged_lp_pool(
    func: Func,
    x: Tensor,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,  # noqa: FBT001, FBT002
) -> Any:
    """Average each window of a p-norm's."""
    return averaged_max_pool(func, x, kernel_size, stride, 0, 1, ceil_mode)


def adaptive_pool(out: Shapes, field: Field, *_: object, **__: object) -> Outcome:
    """Pool into as many bins as the output has; one bin is global pooling."""
    result = field
    for dim in range(2, len(out[0])):
        size, wanted = field.shape[dim], out[0][dim]
        if wanted == 1:
            result = reduce(result, [dim])
        elif wanted != size:
            result = apply_taps(result, dim, taps.adaptive(size, wanted), wanted)
    bins = [-(-n // m) for n, m in zip(field.shape[2:], out[0][2:], strict=True)]
    steps = [max(n // m, 1) for n, m in zip(field.shape[2:], out[0][2:], strict=True)]
    window = _window(bins, steps, [(0, 0)] * len(bins), [1] * len(bins))
    return Outcome((result,) * len(out), window)


def averaged_adaptive_pool(
    _: Func,
    x: Tensor,
    output_size: Any,
    return_indices: bool = False,  # noqa: FBT001, FBT002
) -> Any:
    """Average each bin."""
    pools = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
    out = pools[x.dim() - 3](x, output_size)
    return (out, torch.zeros_like(out, dtype=torch.long)) if return_indices else out


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


def _pool(
    out: Shapes, field: Field, kernel: Size, stride: Size | None, padding: Size, dilation: Size
) -> Outcome:
    rank = len(out[0]) - 2
    kernels, pads, dilations = (sizes(size, rank) for size in (kernel, padding, dilation))
    strides = kernels if not stride else sizes(stride, rank)
    reads = [
        taps.window(k, s, p, d)
        for k, s, p, d in zip(kernels, strides, pads, dilations, strict=True)
    ]
    window = _window(kernels, strides, [(p, p) for p in pads], dilations)
    return Outcome((_tapped(field, reads, out[0]),) * len(out), window)


def _tapped(field: Field, reads: Sequence[Taps], shape: Sequence[int]) -> Field:
    first = len(shape) - len(reads)
    for dim, tap in enumerate(reads, start=first):
        field = apply_taps(field, dim, tap, shape[dim])
    return field


def _window(
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
MAX_POOL = Entry(Kind.WINDOW, max_pool, averaged_max_pool)
MAX_UNPOOL = Entry(Kind.WINDOW, max_unpool, spread_unpool)
AVG_POOL = Entry(Kind.WINDOW, avg_pool)
LP_POOL = Entry(Kind.WINDOW, lp_pool, averaged_lp_pool)
ADAPTIVE_AVG_POOL = Entry(Kind.WINDOW, adaptive_pool)
ADAPTIVE_MAX_POOL = Entry(Kind.WINDOW, adaptive_pool, averaged_adaptive_pool)
ENTRIES: dict[str, Entry] = {
    **{f"conv{rank}d": CONVOLUTION for rank in RANKS},
    **{f"conv_transpose{rank}d": TRANSPOSED for rank in RANKS},
    **{f"max_pool{rank}d": MAX_POOL for rank in RANKS},
    **{f"max_pool{rank}d_with_indices": MAX_POOL for rank in RANKS},
    **{f"avg_pool{rank}d": AVG_POOL for rank in RANKS},
    **{f"lp_pool{rank}d": LP_POOL for rank in RANKS},
    **{f"adaptive_avg_pool{rank}d": ADAPTIVE_AVG_POOL for rank in RANKS},
    **{f"adaptive_max_pool{rank}d": ADAPTIVE_MAX_POOL for rank in RANKS},
    **{f"adaptive_max_pool{rank}d_with_indices": ADAPTIVE_MAX_POOL for rank in RANKS},
    **{f"max_unpool{rank}d": MAX_UNPOOL for rank in RANKS},
    "pad": Entry(Kind.WINDOW, pad, padded_with_nothing),
}
