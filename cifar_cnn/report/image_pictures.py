"""Mosaics of small images: mistakes, an augmented batch, the first layer's filters."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from cifar_cnn.data.dataset import MEAN, STD
from cifar_cnn.inference.examine import Mistake
from cifar_cnn.report.figures import picture, shortened

COLUMNS = 8
MOST_SHOWN = 32

Pixels = NDArray[np.floating]


def draw_mistakes(mistakes: Sequence[Mistake]) -> bytes:
    """Return a PNG: each image with its true class, and what it was taken for how surely."""
    columns = 6
    images = np.stack([mistake.pixels.transpose(1, 2, 0) / 255 for mistake in mistakes])
    height, width = images.shape[1:3]
    gap = (round(0.36 * height), round(0.1 * width) + 1)
    mosaic = _mosaic(images, columns, gap)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_axis_off()
        axes.imshow(mosaic, interpolation="nearest", aspect="auto")
        for index, mistake in enumerate(mistakes):
            row, column = divmod(index, columns)
            left = column * (width + gap[1]) + gap[1] - 0.5
            top = (row + 1) * gap[0] + row * height - 0.5
            said = f"→ {shortened(mistake.predicted, 13)} {mistake.probability:.0%}"
            axes.text(left, top - 0.21 * height, shortened(mistake.true, 18), fontsize=8)
            axes.text(left, top - 0.07 * height, said, fontsize=8)

    return picture(9, 9 * mosaic.shape[0] / mosaic.shape[1], draw, colors=None)


def draw_batch(images: Tensor) -> bytes:
    """Return a PNG of a batch as the network gets it: normalized float32 (N, 3, H, W)."""
    shown = images[:MOST_SHOWN].cpu().numpy().transpose(0, 2, 3, 1)
    return _draw_mosaic((shown * STD + MEAN).clip(0, 1), (2, 2), 6.4)


def draw_filters(weights: NDArray[np.float32]) -> bytes:
    """Return a PNG of filters (N, 3, kh, kw) as colors: gray is 0, the largest weight full."""
    largest = np.abs(weights).max() or 1.0
    return _draw_mosaic((0.5 + weights / (2 * largest)).transpose(0, 2, 3, 1), (1, 1), 4.8)


def first_filters(model: nn.Module) -> NDArray[np.float32] | None:
    """Return weights (N, 3, kh, kw) of the first convolution on three channels, 32 at most."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.shape[1] == len(MEAN):
            weights: NDArray[np.float32] = module.weight.detach()[:MOST_SHOWN].cpu().numpy()
            return weights
    return None


def _draw_mosaic(images: Pixels, gap: tuple[int, int], inches: float) -> bytes:
    mosaic = _mosaic(images, min(COLUMNS, len(images)), gap)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_axis_off()
        axes.imshow(mosaic, interpolation="nearest")

    return picture(inches, inches * mosaic.shape[0] / mosaic.shape[1], draw, colors=None)


def _mosaic(images: Pixels, columns: int, gap: tuple[int, int]) -> Pixels:
    """Lay images (N, H, W, 3) out in rows on white, `gap` pixels above and left of each."""
    count, height, width, _ = images.shape
    rows = math.ceil(count / columns)
    below, beside = height + gap[0], width + gap[1]
    canvas = np.ones((rows * below, columns * beside, 3))
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = row * below + gap[0], column * beside + gap[1]
        canvas[top : top + height, left : left + width] = image
    return canvas
