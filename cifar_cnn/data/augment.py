"""Augmentation of batches: random draws without hidden state, and what they do to images."""

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
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


class Purpose(IntEnum):
    """What a draw is for; two purposes never share their numbers."""

    ORDER = 1
    AUGMENTATION = 2
    NETWORK = 3
    MIXUP = 4


def derive_seed(seed: int, purpose: Purpose, epoch: int = 0, step: int = 0) -> int:
    """Return a 64-bit seed for one draw, by numpy's SeedSequence hash of its coordinates."""
    sequence = np.random.SeedSequence((seed, purpose, epoch, step))
    return int(sequence.generate_state(1, np.uint64)[0])


def generator(seed: int, purpose: Purpose, epoch: int, step: int = 0) -> torch.Generator:
    """Return a CPU generator at the start of that draw: the same numbers on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, epoch, step))


def seed_network(device: torch.device, seed: int) -> None:
    """Start the network's own draws on that device, and on the CPU, at this 64-bit seed."""
    if device.type == "cpu":  # only its own: reaching for a GPU takes a tenth of a millisecond
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@dataclass(frozen=True)
class Draws:
    """The random draws for each of N images; None for a transformation that is off."""

    flip: Tensor  # bool (N), mirrored left to right
    shift: Tensor | None  # int64 (N, 2), pixels down and right
    color: Tensor | None  # float32 (N, 3), factors of brightness, contrast, saturation
    rotation: Tensor | None  # float32 (N, 2, 3), from output to input as in F.affine_grid
    warped: Tensor | None  # int64 (K), the images that `affine` is for, ascending, on the CPU
    affine: Tensor | None  # float32 (K, 2, 3), as `rotation`
    cutout: Tensor | None  # int64 (N, 2), top and left of the square; -1 for no square

    def of(self, images: slice) -> "Draws":
        """Return the draws of a contiguous part of the images."""
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
        """Return the draws on another device; `warped` stays, so that nothing waits for it."""
        fields = {k: v for k, v in vars(self).items() if v is not None and k != "warped"}
        moved = {name: value.to(device, non_blocking=True) for name, value in fields.items()}
        return replace(self, **moved)


def check_augmentation(settings: Settings) -> None:
    """Raise a SettingsError for an augmentation that the images are too small for."""
    side = min(settings.input_size)
    if settings.cutout and settings.cutout_size > side:
        raise SettingsError(f"cutout_size {settings.cutout_size} is larger than the image")
    if settings.shift >= side:
        raise SettingsError(f"shift {settings.shift} is as large as the image: set --shift 0")
    for name in ("affine", "rotation"):
        if getattr(settings, name) and side == 1:
            raise SettingsError(f"{name} needs images of at least 2x2: set --{name} 0")


def draw(settings: Settings, count: int, generator: torch.Generator) -> Draws:
    """Draw for `count` images; depends on the settings and the generator alone."""
    shift = color = rotation = affine = warped = cutout = None
    flip = torch.rand(count, generator=generator) < settings.flip
    if settings.shift:
        shift = torch.randint(-settings.shift, settings.shift + 1, (count, 2), generator=generator)
    if settings.color_jitter:
        color = 1 + settings.color_jitter * (2 * torch.rand(count, 3, generator=generator) - 1)
    if settings.rotation:
        angle = math.radians(settings.rotation) * (2 * torch.rand(count, generator=generator) - 1)
        rotation = _about_center(angle, torch.ones(count), torch.zeros(2, count), settings)
    if settings.affine:
        is_warped = torch.rand(count, generator=generator) < settings.affine
        warped = is_warped.nonzero().squeeze(1)
        right, down, scale, turn = 2 * torch.rand(4, count, generator=generator) - 1
        move, angle = AFFINE_SHIFT * torch.stack([right, down]), math.radians(AFFINE_DEGREES) * turn
        affine = _about_center(angle, 1 + AFFINE_SCALE * scale, move, settings)[warped]
    if settings.cutout:
        cut = torch.rand(count, generator=generator) < settings.cutout
        ends = [side - settings.cutout_size + 1 for side in settings.input_size]
        corners = [torch.randint(0, end, (count,), generator=generator) for end in ends]
        cutout = torch.where(cut[:, None], torch.stack(corners, dim=1), -1)
    return Draws(flip, shift, color, rotation, warped, affine, cutout)


def _about_center(angle: Tensor, scale: Tensor, shift: Tensor, settings: Settings) -> Tensor:
    """Return float32 (N, 2, 3): the inverse of a rotation, scaling and shift about the center.

    `angle` (N) is clockwise in radians, `scale` (N) enlarges above 1, `shift` (2, N) goes right and
    down in image sides. Coordinates are those of `F.affine_grid(align_corners=True)`: -1 and 1 are
    the centers of the outermost pixels.
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
    """Return uint8 images (N, 3, H, W) augmented and normalized, float32; a cut-out is 0.

    The draws are on the images' device; `cutout_size` is in pixels.
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
    """Mirror, then move; borders are filled by reflection about the edge pixel."""
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
    """Return bool (N, 1, H, W), true inside each image's square, if it has one."""
    inside = []
    for axis, length in enumerate(size):
        position = torch.arange(length, device=corners.device)
        first = corners[:, axis, None]
        inside.append((position >= first) & (position < first + side) & (first >= 0))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]


def recolor(images: Tensor, factors: Tensor, normalization: Normalization = REFERENCE) -> Tensor:
    """Return normalized images (N, 3, H, W) with their colors changed by `factors` (N, 3).

    All three changes are linear in the colors of a pixel, so one 3×3 matrix and one color for each
    image do them together. Formulas: torchvision's `adjust_brightness`, `adjust_contrast` and
    `adjust_saturation` in this order, but not clipped to the range of bytes in between.
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


@dataclass(frozen=True)
class Mix:
    """Which image of the batch is mixed into each of N images, and how much of it.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018), equation 1; but the
    fractions are uniform and grow with the run, so that the network sees plain images first.
    """

    partner: Tensor  # int64 (N), a permutation
    fraction: Tensor  # float32 (N), of the partner; the image keeps the rest

    def to(self, device: torch.device) -> "Mix":
        """Return the mix on another device."""
        moved = (each.to(device, non_blocking=True) for each in (self.partner, self.fraction))
        return Mix(*moved)


def draw_mix(settings: Settings, epoch: int, count: int, generator: torch.Generator) -> Mix:
    """Draw for `count` images; fractions are uniform up to `largest_fraction`."""
    partner = torch.randperm(count, generator=generator)
    return Mix(partner, largest_fraction(settings, epoch) * torch.rand(count, generator=generator))


def largest_fraction(settings: Settings, epoch: int) -> float:
    """Return the epoch's largest fraction: linear from 0 to `mixup` halfway, then constant."""
    return settings.mixup * min(1.0, 2 * epoch / settings.epochs)


def mix_images(images: Tensor, mix: Mix) -> Tensor:
    """Return floating-point images (N, C, H, W), each mixed with its partner."""
    return torch.lerp(images, images[mix.partner], mix.fraction[:, None, None, None])
