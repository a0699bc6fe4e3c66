"""Mosaics of small images: mistakes, an augmented batch, filters, and Grad-CAM."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import PurePath

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from cifar_cnn.analysis.grad_cam import GradCam
from cifar_cnn.data.dataset import Normalization, normalize
from cifar_cnn.data.images import read_images
from cifar_cnn.errors import UserError, printable
from cifar_cnn.inference.examine import Mistake
from cifar_cnn.inference.predict import Prediction
from cifar_cnn.models.guard import guarded
from cifar_cnn.report.figures import draw, ending, shortened
from cifar_cnn.storage.network import Network

COLUMNS = 8
MOST_SHOWN = 32
CAPTIONED = 4
"""Columns of images with captions."""
TILE, GAP, LINE = 1.35, 0.1, 0.145
"""Inches: an image with the gap beside it, the gap, a line of its caption."""
LETTERS = 19
"""Of a caption's line."""
MOST_EXPLAINED = 16
"""Images in one picture of an explanation."""

Pixels = NDArray[np.floating]
Heat = NDArray[np.float32]


class Explanation:
    """Grad-CAM of a trained network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        with self._guarded():
            self._grad_cam = GradCam(network.model, network.settings.input_size)
        height, width = self._grad_cam.size
        self.where = f"Grad-CAM on the {height}×{width} map of {self._grad_cam.layer}"

        self.heat([np.zeros((3, *network.settings.input_size), np.uint8)], network.classes[:1])

    def heat(
        self, pixels: Sequence[NDArray[np.uint8]], classes: Sequence[str]
    ) -> NDArray[np.float32]:
        """Return the heat (N, H, W) of images (3, H, W), each for the class that is named."""
        images = torch.from_numpy(np.stack(pixels)).to(self._network.device)
        labels = [self._network.classes.index(name) for name in classes]
        with self._guarded():
            heat = self._grad_cam(normalize(images, self._network.normalization), labels)
        return self._grad_cam.over_images(heat)

    def _guarded(self) -> AbstractContextManager[None]:
        return guarded("Grad-CAM of the network fails", UserError, self._network.model)

    def picture(self, predictions: Sequence[Prediction]) -> bytes:
        """Return a PNG of the first images, read again, with the heat of their first class."""
        shown = predictions[:MOST_EXPLAINED]
        size = self._network.settings.input_size
        pixels = read_images([each.source for each in shown], size).images
        answers = [each.top[0] for each in shown]
        heat = self.heat(list(pixels), [each.name for each in answers])
        said = [f"{each.name} {each.probability:.0%}" for each in answers]
        return _draw_explained(list(pixels), heat, [each.file for each in shown], said)

    def about(self, count: int) -> str:
        """Return what the picture of `count` images shows."""
        many = f", the first {MOST_EXPLAINED} of {count:,} images" if count > MOST_EXPLAINED else ""
        return self.where + many


def draw_mistakes(mistakes: Sequence[Mistake]) -> bytes:
    """Return a PNG: each image with its class, what it was taken for how surely, and its file."""
    return _draw_captioned([_shown(each.pixels) for each in mistakes], _said(mistakes))


def draw_heated_mistakes(mistakes: Sequence[Mistake], heat: Heat) -> bytes:
    """Return the PNG of `draw_mistakes` with the heat (N, H, W) of each answer laid over it."""
    pairs = zip(mistakes, heat, strict=True)
    images = [_heated(_shown(each.pixels), of_image) for each, of_image in pairs]
    return _draw_captioned(images, _said(mistakes))


def draw_batch(images: Tensor, normalization: Normalization) -> bytes:
    """Return a PNG of a batch as the network gets it: normalized float32 (N, 3, H, W)."""
    shown = images[:MOST_SHOWN].cpu().numpy().transpose(0, 2, 3, 1)
    pixels = shown * normalization.std + normalization.mean
    return _draw_mosaic(pixels.clip(0, 1), (2, 2), 6.4)


def draw_filters(weights: NDArray[np.float32]) -> bytes:
    """Return a PNG of filters (N, 3, kh, kw) as colors: gray is 0, the largest weight full."""
    largest = np.abs(weights).max() or 1.0
    return _draw_mosaic((0.5 + weights / (2 * largest)).transpose(0, 2, 3, 1), (1, 1), 4.8)


def first_filters(model: nn.Module) -> NDArray[np.float32] | None:
    """Return weights (N, 3, kh, kw) of the first convolution on three channels, 32 at most."""
    for module in nn.Module.modules(model):
        if isinstance(module, nn.Conv2d) and module.weight.shape[1] == 3:
            weights: NDArray[np.float32] = module.weight.detach()[:MOST_SHOWN].cpu().numpy()
            return weights
    return None


def _draw_explained(
    pixels: Sequence[NDArray[np.uint8]], heat: Heat, files: Sequence[str], answers: Sequence[str]
) -> bytes:
    """Return a PNG: each image (3, H, W), and beside it the same with its heat (H, W) over it."""
    shown = [_shown(each) for each in pixels]
    pairs = [(each, _heated(each, of_image)) for each, of_image in zip(shown, heat, strict=True)]
    return _draw_captioned(
        [image for pair in pairs for image in pair],
        [
            said
            for file, answer in zip(files, answers, strict=True)
            for said in ((_end_of(file), answer), ("", "Grad-CAM"))
        ],
        min(CAPTIONED, 2 * len(shown)),
    )


def _said(mistakes: Sequence[Mistake]) -> list[tuple[str, ...]]:
    return [
        (each.true, f"→ {each.predicted} {each.probability:.0%}", _end_of(each.file))
        for each in mistakes
    ]


def _end_of(file: str) -> str:
    return ending(printable(PurePath(file).name), LETTERS)


def _shown(pixels: NDArray[np.uint8]) -> Pixels:
    return pixels.transpose(1, 2, 0) / 255


def _heated(image: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """Mix an image (H, W, 3) with its heat (H, W), of which the largest is the brightest."""
    relative = heat / (heat.max() or 1.0)
    mixed: Pixels = (image + colormaps["inferno"](relative)[..., :3]) / 2
    return mixed


def _draw_captioned(
    images: Sequence[Pixels], captions: Sequence[tuple[str, ...]], columns: int = CAPTIONED
) -> bytes:
    """Return a PNG of images (H, W, 3) of one size, each under the lines of its caption."""
    width = TILE * columns
    per_inch = images[0].shape[1] / (TILE - GAP)
    line, gap = LINE * per_inch, math.ceil(GAP * per_inch)
    above = math.ceil((len(captions[0]) + 0.5) * line)
    mosaic = _mosaic(np.stack(images), columns, (above, gap))

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_axis_off()
        axes.imshow(mosaic, interpolation="nearest", aspect="auto")
        for index, lines in enumerate(captions):
            row, column = divmod(index, columns)
            left = column * (images[0].shape[1] + gap) + gap - 0.5
            top = (row + 1) * above + row * images[0].shape[0] - 0.5
            for number, text in enumerate(reversed(lines)):
                said = shortened(printable(text), LETTERS)
                axes.text(left, top - (number + 0.35) * line, said, fontsize=8)

    return draw(width, width * mosaic.shape[0] / mosaic.shape[1], fill, colors=None)


def _draw_mosaic(images: Pixels, gap: tuple[int, int], inches: float) -> bytes:
    square = math.ceil(math.sqrt(2 * len(images)))  # about: the whole is twice as wide as high
    mosaic = _mosaic(images, min(COLUMNS, square + square % 2, len(images)), gap)

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_axis_off()
        axes.imshow(mosaic, interpolation="nearest")

    return draw(inches, inches * mosaic.shape[0] / mosaic.shape[1], fill, colors=None)


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
