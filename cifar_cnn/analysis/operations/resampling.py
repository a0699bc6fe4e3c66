"""Operations that resample a map: interpolation, pixel shuffle and its inverse."""

from collections.abc import Sequence
from fractions import Fraction

from cifar_cnn.analysis import taps
from cifar_cnn.analysis.field import Field, Taps, apply_taps
from cifar_cnn.analysis.field_layout import concatenate, reshape
from cifar_cnn.analysis.operations.convolution import mix_channels
from cifar_cnn.analysis.operations.entry import (
    Entry,
    Kind,
    Outcome,
    Shapes,
    UnsupportedError,
    Window,
)
from cifar_cnn.analysis.operations.pooling import adaptive_pool

RADII = {"linear": 1, "bilinear": 1, "bicubic": 2}
"""Units on each side that a mode interpolates between."""


def interpolate(
    out: Shapes,
    field: Field,
    size: object = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,  # noqa: FBT001
    recompute_scale_factor: bool | None = None,  # noqa: FBT001
    antialias: bool = False,  # noqa: FBT001, FBT002
) -> Outcome:
    """Resample the map to the output's size."""
    if mode == "area":
        return adaptive_pool(out, field)
    rank = len(out[0]) - 2
    factors = list(scale_factor) if isinstance(scale_factor, Sequence) else [scale_factor] * rank
    result = field
    for dim, factor in zip(range(2, rank + 2), factors, strict=True):
        before, after = field.shape[dim], out[0][dim]
        if align_corners:
            scale = Fraction(before - 1, after - 1) if after > 1 else Fraction(0)
        elif factor is None or recompute_scale_factor:
            scale = Fraction(before, after)
        else:
            scale = 1 / Fraction(factor).limit_denominator(1 << 16)
        reads = _resampling(mode, scale, align_corners=bool(align_corners), antialias=antialias)
        result = apply_taps(result, dim, reads, after)
    return Outcome((result,))


def pixel_shuffle(out: Shapes, field: Field, upscale_factor: int) -> Outcome:
    """Spread r² channels over an r × r patch; each patch is given the hull of its channels."""
    result = mix_channels(field, 2, groups=out[0][1], channels=out[0][1])
    for dim in (2, 3):
        result = apply_taps(result, dim, taps.repeated(upscale_factor), out[0][dim])
    return Outcome((result,))


def pixel_unshuffle(out: Shapes, field: Field, downscale_factor: int) -> Outcome:
    """Gather each r × r patch into r² channels."""
    r = downscale_factor
    batch, channels, rows, columns = field.shape
    pieces = []
    for y in range(r):
        for x in range(r):
            part = apply_taps(field, 2, taps.strided(y, r), rows // r)
            part = apply_taps(part, 3, taps.strided(x, r), columns // r)
            pieces.append(reshape(part, (batch, channels, 1, rows // r, columns // r)))
    window = Window(kernel=(r, r), stride=(r, r))
    return Outcome((reshape(concatenate(pieces, 2), out[0]),), window)


def _resampling(mode: str, scale: Fraction, *, align_corners: bool, antialias: bool) -> Taps:
    if mode in {"nearest", "nearest-exact"}:
        return taps.nearest(scale, exact=mode == "nearest-exact")
    radius = RADII.get(mode)
    if radius and antialias and not align_corners:
        return taps.antialiased(scale, radius)
    if radius and not antialias:
        return taps.interpolated(scale, radius, align_corners=align_corners)
    raise UnsupportedError(f"mode {mode!r}" + (" with antialias" if antialias else ""))


ENTRIES: dict[str, Entry] = {
    **dict.fromkeys(("interpolate", "upsample"), Entry(Kind.RESAMPLING, interpolate)),
    "pixel_shuffle": Entry(Kind.RESAMPLING, pixel_shuffle),
    "pixel_unshuffle": Entry(Kind.RESAMPLING, pixel_unshuffle),
}
