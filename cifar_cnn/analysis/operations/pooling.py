"""Operations that pool windows, and their inverse."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, apply_taps, hull
from cifar_cnn.analysis.field_layout import reduce
from cifar_cnn.analysis.operations.convolution import RANKS, map_window, tapped
from cifar_cnn.analysis.operations.entry import (
    Entry,
    Kind,
    Outcome,
    Shapes,
    Size,
    sizes,
)

Func = Callable[..., Any]


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
    return Outcome((tapped(hull(field.shape, [field, indices]), reads, out[0]),))


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
    window = map_window(bins, steps, [(0, 0)] * len(bins), [1] * len(bins))
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
    window = map_window(kernels, strides, [(p, p) for p in pads], dilations)
    return Outcome((tapped(field, reads, out[0]),) * len(out), window)


MAX_POOL = Entry(Kind.WINDOW, max_pool, averaged_max_pool)
MAX_UNPOOL = Entry(Kind.WINDOW, max_unpool, spread_unpool)
AVG_POOL = Entry(Kind.WINDOW, avg_pool)
LP_POOL = Entry(Kind.WINDOW, lp_pool, averaged_lp_pool)
ADAPTIVE_AVG_POOL = Entry(Kind.WINDOW, adaptive_pool)
ADAPTIVE_MAX_POOL = Entry(Kind.WINDOW, adaptive_pool, averaged_adaptive_pool)
ENTRIES: dict[str, Entry] = {
    **{f"max_pool{rank}d": MAX_POOL for rank in RANKS},
    **{f"max_pool{rank}d_with_indices": MAX_POOL for rank in RANKS},
    **{f"avg_pool{rank}d": AVG_POOL for rank in RANKS},
    **{f"lp_pool{rank}d": LP_POOL for rank in RANKS},
    **{f"adaptive_avg_pool{rank}d": ADAPTIVE_AVG_POOL for rank in RANKS},
    **{f"adaptive_max_pool{rank}d": ADAPTIVE_MAX_POOL for rank in RANKS},
    **{f"adaptive_max_pool{rank}d_with_indices": ADAPTIVE_MAX_POOL for rank in RANKS},
    **{f"max_unpool{rank}d": MAX_UNPOOL for rank in RANKS},
}
