"""Operations between a map and its windows: each window a column, or a dimension of its own."""

from collections.abc import Iterator
from typing import Any

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, apply_taps, hull
from cifar_cnn.analysis.field_layout import concatenate, reshape
from cifar_cnn.analysis.operations.entry import Entry, Kind, Outcome, Pair, Shapes, Size, sizes
from cifar_cnn.analysis.operations.indexing import narrow


def unfolding(out: Shapes, field: Field, *args: Any, **named: Any) -> Outcome:
    """Give each window's units a dimension: of one dimension, or of a map as its columns."""
    if len(out[0]) == len(field.shape) + 1:
        return _unfolded_dim(out, field, *args, **named)
    return _unfolded_map(out, field, *args, **named)


def _unfolded_dim(out: Shapes, field: Field, dimension: int, size: int, step: int) -> Outcome:
    dim = dimension % len(field.shape)
    count = out[0][dim]
    pieces = [reshape(narrow(field, dim, k, count, step), (*out[0][:-1], 1)) for k in range(size)]
    return Outcome((concatenate(pieces, len(field.shape)),))


def _unfolded_map(
    out: Shapes,
    field: Field,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Size = 0,
    stride: Size = 1,
) -> Outcome:
    *batch, channels, rows, columns = field.shape
    kernel, dilations, pads, strides = _pairs(kernel_size, dilation, padding, stride)
    down, along = _counts((rows, columns), kernel, dilations, pads, strides)
    axis = len(batch) + 1
    pieces = []
    for y, x in _places(kernel, dilations, pads):
        part = apply_taps(field, axis, taps.strided(y, strides[0]), down)
        part = apply_taps(part, axis + 1, taps.strided(x, strides[1]), along)
        pieces.append(reshape(part, (*batch, channels, 1, down, along)))
    return Outcome((reshape(concatenate(pieces, axis), out[0]),))


def folding(
    out: Shapes,
    field: Field,
    output_size: Size,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Size = 0,
    stride: Size = 1,
) -> Outcome:
    """Add each column's units up at the places of its window: the reverse of unfolding a map."""
    *batch, channels, rows, columns = out[0]
    kernel, dilations, pads, strides = _pairs(kernel_size, dilation, padding, stride)
    down, along = _counts((rows, columns), kernel, dilations, pads, strides)
    axis = len(batch) + 1
    windows = reshape(field, (*batch, channels, kernel[0] * kernel[1], down, along))
    pieces = []
    for place, (y, x) in enumerate(_places(kernel, dilations, pads)):
        part = reshape(narrow(windows, axis, place, 1), (*batch, channels, down, along))
        part = apply_taps(part, axis, taps.transposed(1, strides[0], -y, 1), rows)
        pieces.append(apply_taps(part, axis + 1, taps.transposed(1, strides[1], -x, 1), columns))
    return Outcome((hull(out[0], pieces),))


def _pairs(*given: Size) -> Iterator[Pair]:
    """Yield each size as (vertical, horizontal)."""
    for size in given:
        vertical, horizontal = sizes(size, 2)
        yield vertical, horizontal


def _counts(size: Pair, kernel: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Iterator[int]:
    """Yield how many windows lie below one another in a map of `size`, and side by side."""
    for n, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True):
        yield (n + 2 * p - d * (k - 1) - 1) // s + 1


def _places(kernel: Pair, dilation: Pair, padding: Pair) -> Iterator[Pair]:
    """Yield where each unit of the first window lies in the map, row by row."""
    for y in range(kernel[0]):
        for x in range(kernel[1]):
            yield y * dilation[0] - padding[0], x * dilation[1] - padding[1]


ENTRIES: dict[str, Entry] = {
    "unfold": Entry(Kind.SHAPE, unfolding),
    "fold": Entry(Kind.WINDOW, folding),
}
