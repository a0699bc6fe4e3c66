"""Augmentation of batches: what is drawn for each image, and what the draws do to it.

Drawing and applying are apart, so that the draws of a step can be shared out or checked.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_cnn.data.dataset import REFERENCE, Normalization, normalize
from cifar_cnn.errors import SettingsError
from cifar_cnn.settings import Settings

AFFINE_SHIFT = 0.1
AFFINE_SCALE = 0.1
AFFINE_DEGREES = 15.0
LUMA = (0.2989, 0.587, 0.114)
"""Weights of R, G and B in the gray value (ITU-R BT.601), as torchvision rounds them."""


@dataclass(frozen=True)
class Draws:
    """What happens to each of N images; None where the settings leave a transformation out.

    Args:
        flip: bool (N), mirrored left to right.
        shift: int64 (N, 2), pixels down and right, or None.
        color: float32 (N, 3), factors of brightness, contrast and saturation, or None.
        rotation: float32 (N, 2, 3), from output to input coordinates as in `F.affine_grid`, or
            None.
        warped: int64 (K), the images that `affine` is for, ascending, on the CPU; or None.
        affine: float32 (K, 2, 3), as `rotation`, or None.
        cutout: int64 (N, 2), top and left of the square; -1 for images without one; or None.
    """

    flip: Tensor
    shift: Tensor | None
    color: Tensor | None
    rotation: Tensor | None
    warped: Tensor | None
    affine: Tensor | None
    cutout: Tensor | None

    def of(self, images: slice) -> "Draws":
        """Return the draws of some of the images, a run of neighbors."""
        first, stop, _ = images.indices(len(self.flip))
        if stop - first == len(self.flip):
            return self
        fields = {name: value for name, value in vars(self).items() if value is not None}
        parts = {name: value[images] for name, value in fields.items()}
        if self.warped is not None and self.affine is not None:
            bounds = torch.searchsorted(self.warped, torch.tensor([first, stop]))
            inside = slice(*bounds.tolist())
            parts |= {"warped": self.warped[inside] - first, "affine": self.affine[inside]}
        return replace(self, **parts)

    def to(self, device: torch.device) -> "Draws":
        """Return the draws on another device; indices stay, so that none has to be waited for."""
        fields = {k: v for k, v in vars(self).items() if v is not None and k != "warped"}
        moved = {name: value.to(device, non_blocking=True) for name, value in fields.items()}
        return replace(self, **moved)


def check_augmentation(settings: Settings) -> None:
    """Refuse an augmentation that the images are too small for.

    Raises:
        SettingsError: naming the setting.
    """
    side = min(settings.input_size)
    if settings.cutout and settings.cutout_size > side:
        raise SettingsError(f"cutout_size {settings.cutout_size} is larger than the image")
    if settings.shift >= side:
        raise SettingsError(f"shift {settings.shift} is as large as the image: set --shift 0")
    for name in ("affine", "rotation"):
        if getattr(settings, name) and side == 1:
            raise SettingsError(f"{name} needs images of at least 2x2: set --{name} 0")


def draw(settings: Settings, count: int, generator: torch.Generator) -> Draws:
    """Draw for `count` images; the numbers depend on the settings and the generator alone."""
    shift = color = rotation = affine = warped = cutout = None
    flip = torch.rand(count, generator=generator) < settings.flip
    if settings.shift:
        shift = torch.randint(-settings.shift, settings.shift + 1, (count, 2), generator=generator)
    if settings.color_jitter:
        color = draw_color(settings.color_jitter, count, generator)
    if settings.rotation:
        angle = math.radians(settings.rotation) * (2 * torch.rand(count, generator=generator) - 1)
        rotation = _about_center(angle, torch.ones(count), torch.zeros(2, count), settings)
    if settings.affine:
        applied = torch.rand(count, generator=generator) < settings.affine
        warped = applied.nonzero().squeeze(1)
        affine = _draw_affine(count, settings, generator)[warped]
    if settings.cutout:
        cut = torch.rand(count, generator=generator) < settings.cutout
        ends = [side - settings.cutout_size + 1 for side in settings.input_size]
        corners = [torch.randint(0, end, (count,), generator=generator) for end in ends]
        cutout = torch.where(cut[:, None], torch.stack(corners, dim=1), -1)
    return Draws(flip, shift, color, rotation, warped, affine, cutout)


def _draw_affine(count: int, settings: Settings, generator: torch.Generator) -> Tensor:
    """Return float32 (N, 2, 3); each of the four amounts is uniform in ± its constant."""
    shift_x, shift_y, scale, angle = 2 * torch.rand(4, count, generator=generator) - 1
    shift = AFFINE_SHIFT * torch.stack([shift_x, shift_y])
    angle = math.radians(AFFINE_DEGREES) * angle
    return _about_center(angle, 1 + AFFINE_SCALE * scale, shift, settings)


def _about_center(angle: Tensor, scale: Tensor, shift: Tensor, settings: Settings) -> Tensor:
    """Return float32 (N, 2, 3): the inverse of a rotation, scaling and shift about the center.

    Coordinates are those of `F.affine_grid(align_corners=True)`: -1 and 1 are the centers of the
    outermost pixels.

    Args:
        angle: float32 (N), radians, positive clockwise.
        scale: float32 (N), above 1 enlarges.
        shift: float32 (2, N), to the right and down, in image sides.
        settings: with the size of the images.
    """
    height, width = settings.input_size
    scale = 1 / scale
    cos, sin = scale * angle.cos(), scale * angle.sin()
    aspect = (height - 1) / (width - 1)
    shift_x = shift[0] * 2 * width / (width - 1)
    shift_y = shift[1] * 2 * height / (height - 1)
    sin_x, sin_y = sin * aspect, -sin / aspect
    row_x = torch.stack([cos, sin_x, -cos * shift_x - sin_x * shift_y], dim=1)
    row_y = torch.stack([sin_y, cos, -sin_y * shift_x - cos * shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def apply(
    images: Tensor, draws: Draws, cutout_size: int, normalization: Normalization = REFERENCE
) -> Tensor:
    """Return the augmented batch.

    Args:
        images: uint8 (N, 3, H, W).
        draws: of the same N images, moved to their device.
        cutout_size: side of the cut-out square in pixels.
        normalization: of the network's images.

    Returns:
        Normalized float32 (N, 3, H, W). A cut-out is 0: the mean color.
    """
    out = normalize(_flip_and_shift(images, draws.flip, draws.shift), normalization)
    if draws.color is not None:
        out = recolor(out, draws.color, normalization)
    if draws.rotation is not None:
        out = _warp(out, draws.rotation)
    if draws.warped is not None and len(draws.warped):  # a small last batch may have none
        assert draws.affine is not None
        warped = draws.warped.to(out.device, non_blocking=True)
        out.index_copy_(0, warped, _warp(out.index_select(0, warped), draws.affine))
    if draws.cutout is not None:
        out = out.masked_fill_(_squares(draws.cutout, cutout_size, out.shape[-2:]), 0.0)
    return out


def _flip_and_shift(images: Tensor, flip: Tensor, shift: Tensor | None) -> Tensor:
    """Mirror, then move; what comes in at a border is the image reflected about its edge pixel."""
    if shift is None:
        return torch.where(flip[:, None, None, None], images.flip(-1), images)
    count, _, height, width = images.shape
    rows = _reflected(height, shift[:, 0])
    columns = _reflected(width, shift[:, 1])
    columns = torch.where(flip[:, None], width - 1 - columns, columns)
    indices = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1)
    return images.flatten(2).gather(2, indices.expand(-1, 3, -1)).view_as(images)


def _reflected(side: int, shift: Tensor) -> Tensor:
    """Return int64 (N, side): the input position for each output position."""
    position = (torch.arange(side, device=shift.device) - shift[:, None]).abs()
    return side - 1 - (side - 1 - position).abs()


def _warp(images: Tensor, affine: Tensor) -> Tensor:
    grid = F.affine_grid(affine, list(images.shape), align_corners=True)
    return F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=True
    )


def _squares(corners: Tensor, side: int, size: torch.Size) -> Tensor:
    """Return bool (N, 1, H, W), true inside each image's square; a corner of -1 has none."""
    inside = []
    for axis, length in enumerate(size):
        position = torch.arange(length, device=corners.device)
        first = corners[:, axis, None]
        inside.append((position >= first) & (position < first + side) & (first >= 0))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]


def draw_color(strength: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw float32 (N, 3): factors of brightness, contrast, saturation, uniform in 1 ± strength."""
    return 1 + strength * (2 * torch.rand(count, 3, generator=generator) - 1)


def recolor(images: Tensor, factors: Tensor, normalization: Normalization = REFERENCE) -> Tensor:
    """Return normalized images with their colors changed.

    All three changes are linear in the colors of a pixel, so one 3×3 matrix and one color for each
    image do them together. Formulas: torchvision's `adjust_brightness`, `adjust_contrast` and
    `adjust_saturation` in this order; but nothing is clipped to the range of bytes in between.

    Args:
        images: float32 (N, 3, H, W), normalized as `normalize` does.
        factors: float32 (N, 3), of brightness, contrast and saturation; 1 changes nothing.
        normalization: that of the images.
    """
    mean, std, luma = (
        torch.tensor(each).to(images.device, non_blocking=True) for each in (*normalization, LUMA)
    )
    brightness, contrast, saturation = factors[:, :, None, None].unbind(1)
    identity, gray = torch.eye(3, device=images.device), luma.expand(3, 3)
    saturate = saturation * identity + (1 - saturation) * gray
    matrix = brightness * contrast * saturate
    average = brightness * (images.mean((2, 3)) * std + mean)[:, :, None]
    offset = saturate @ ((1 - contrast) * (gray @ average))
    # from and to normalized colors: x -> ((matrix (x std + mean) + offset) - mean) / std
    matrix_there = matrix * std / std[:, None]
    offset_there = (matrix @ mean[:, None] + offset - mean[:, None]) / std[:, None]
    return torch.baddbmm(offset_there, matrix_there, images.flatten(2)).view_as(images)
