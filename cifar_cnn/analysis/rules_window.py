"""What windows do to a field: convolutions, pooling, padding."""

from collections.abc import Sequence

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, Taps, apply_taps, hull
from cifar_cnn.analysis.field_layout import reduce, reshape
from cifar_cnn.analysis.outcome import Outcome, Rule, Shapes, Window

Size = int | Sequence[int]


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
    strides, dilations = _sizes(stride, rank), _sizes(dilation, rank)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        pads = [(total // 2, total - total // 2) for total in totals]
    else:
        pads = [(p, p) for p in _sizes(0 if isinstance(padding, str) else padding, rank)]
    mixed = mix_channels(field, rank, groups, weight.shape[0])
    reads = [
        taps.window(k, s, p, d)
        for k, s, (p, _), d in zip(kernel, strides, pads, dilations, strict=True)
    ]
    return Outcome((_tapped(mixed, reads, out[0]),), _window(kernel, strides, pads, dilations))


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
    strides, dilations = _sizes(stride, rank), _sizes(dilation, rank)
    pads = _sizes(padding, rank)
    mixed = mix_channels(field, rank, groups, weight.shape[1] * groups)
    reads = [
        taps.transposed(k, s, p, d)
        for k, s, p, d in zip(kernel, strides, pads, dilations, strict=True)
    ]
    window = _window(kernel, strides, [(p, p) for p in pads], dilations)
    return Outcome((_tapped(mixed, reads, out[0]),), window)


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
    kernel, pads = _sizes(kernel_size, rank), _sizes(padding, rank)
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
    kernels, pads, dilations = (_sizes(size, rank) for size in (kernel, padding, dilation))
    strides = kernels if not stride else _sizes(stride, rank)
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


def _sizes(size: Size, rank: int) -> list[int]:
    if isinstance(size, int):
        return [size] * rank
    return list(size) * rank if len(size) == 1 else list(size)


def _window(
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Window:
    """Return the window as the table shows it; one along a single dimension is no map's."""
    if len(kernel) != 2:
        return Window()
    return Window(
        (kernel[0], kernel[1]),
        (stride[0], stride[1]),
        (padding[0], padding[1]),
        (dilation[0], dilation[1]),
    )


WINDOW_RULES: dict[str, Rule] = {
    "conv1d": convolution,
    "conv2d": convolution,
    "conv_transpose1d": transposed_convolution,
    "conv_transpose2d": transposed_convolution,
    "max_pool1d": max_pool,
    "max_pool2d": max_pool,
    "max_pool2d_with_indices": max_pool,
    "avg_pool1d": avg_pool,
    "avg_pool2d": avg_pool,
    "lp_pool1d": lp_pool,
    "lp_pool2d": lp_pool,
    "adaptive_avg_pool1d": adaptive_pool,
    "adaptive_avg_pool2d": adaptive_pool,
    "adaptive_max_pool1d": adaptive_pool,
    "adaptive_max_pool2d": adaptive_pool,
    "adaptive_max_pool2d_with_indices": adaptive_pool,
    "pad": pad,
}
