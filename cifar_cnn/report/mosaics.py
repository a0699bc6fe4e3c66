"""Mosaics of small images: mistakes, an augmented batch, filters, and Grad-CAM."""

import io
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cifar_cnn.analysis.grad_cam import GradCam
from cifar_cnn.data.dataset import Normalization, normalize
from cifar_cnn.data.images import read_images
from cifar_cnn.errors import UserError, printable
from cifar_cnn.inference.evaluate import JudgedImage
from cifar_cnn.inference.predict import Prediction
from cifar_cnn.models.guard import guarded
from cifar_cnn.report.charts import cut_end, cut_start, draw
from cifar_cnn.storage.network import Network

MAX_TILES = 32
MAX_EXPLAINED = 16
"""Images in one picture of an explanation."""
CAPTION_COLUMNS, CAPTION_LENGTH = 4, 19
IMAGE_WIDTH, GAP, CAPTION_LINE = 1.25, 0.1, 0.145
"""Inches: a captioned image, the gap beside it, a line of its caption."""

Pixels = NDArray[np.floating]
Heat = NDArray[np.float32]


class Explanation:
    """Grad-CAM of a trained network."""

    def __init__(self, network: Network) -> None:
        if network.onnx is not None:
            raise UserError(f"{network.file} is an ONNX network: Grad-CAM needs the run's model.pt")
        self._network = network
        size = network.settings.input_size
        with self._guard():
            self._grad_cam = GradCam(network.model, size)
        height, width = self._grad_cam.size
        self.place = f"Grad-CAM on the {height}×{width} map of {self._grad_cam.layer}"
        self.heat(np.zeros((1, 3, *size), np.uint8), network.classes[:1])  # fails early, if it does

    def heat(self, images: NDArray[np.uint8], classes: Sequence[str]) -> Heat:
        """Return the heat (N, H, W) of images (N, 3, H, W), each for the class of that name."""
        inputs = normalize(
            torch.from_numpy(images).to(self._network.device), self._network.normalization
        )
        with self._guard():
            heat = self._grad_cam(inputs, map(self._network.classes.index, classes))
        return self._grad_cam.over_images(heat)

    def draw(self, predictions: Sequence[Prediction]) -> bytes:
        """Return a PNG of the first images, read again, with the heat of their first class."""
        predictions = predictions[:MAX_EXPLAINED]
        sources = [each.source for each in predictions]
        images = read_images(sources, self._network.settings.input_size).images
        heat = self.heat(images, [each.top[0].name for each in predictions])
        pairs = np.stack([_overlay(images), _overlay(images, heat)], axis=1)
        captions = []
        for each in predictions:
            answer = f"{each.top[0].name} {each.top[0].probability:.0%}"
            captions += [[_file_name(each.file), answer], ["", "Grad-CAM"]]
        columns = min(CAPTION_COLUMNS, len(captions))
        return _draw_captioned(pairs.reshape(-1, *pairs.shape[2:]), captions, columns)

    def describe(self, count: int) -> str:
        """Return what the picture of `count` images shows."""
        is_cut = count > MAX_EXPLAINED
        return self.place + (f", the first {MAX_EXPLAINED} of {count:,} images" if is_cut else "")

    def _guard(self) -> AbstractContextManager[None]:
        return guarded("Grad-CAM of the network fails", UserError, self._network.model)


def draw_mistakes(
    images: NDArray[np.uint8], mistakes: Sequence[JudgedImage], heat: Heat | None = None
) -> bytes:
    """Return a PNG of images (N, 3, H, W), with the heat (N, H, W) of their answers over them.

    Each has its class, what it was taken for how surely, and its file above it.
    """
    captions = [
        [each.true, f"→ {each.predicted} {each.probability:.0%}", _file_name(each.file)]
        for each in mistakes
    ]
    return _draw_captioned(_overlay(images, heat), captions, CAPTION_COLUMNS)


def draw_batch(images: Tensor, normalization: Normalization) -> bytes:
    """Return a PNG of a batch as the network gets it: normalized float32 (N, 3, H, W)."""
    pixels = images[:MAX_TILES].cpu().numpy().transpose(0, 2, 3, 1)
    return _draw_grid((pixels * normalization.std + normalization.mean).clip(0, 1))


def draw_filters(model: nn.Module) -> bytes | None:
    """Return a PNG of the filters of the first convolution on three channels, if there is one.

    Gray is a weight of 0; the largest is a full color.
    """
    for module in nn.Module.modules(model):
        if isinstance(module, nn.Conv2d) and module.weight.shape[1] == 3:
            weights = module.weight.detach()[:MAX_TILES].cpu().numpy().transpose(0, 2, 3, 1)
            return _draw_grid(0.5 + weights / (2 * np.abs(weights).max() or 1.0))
    return None


def _file_name(file: str) -> str:
    return cut_start(printable(PurePath(file).name), CAPTION_LENGTH)


def _overlay(images: NDArray[np.uint8], heat: Heat | None = None) -> Pixels:
    """Return images (N, 3, H, W) as colors (N, H, W, 3) in 0–1, mixed half and half with heat."""
    pixels: Pixels = images.transpose(0, 2, 3, 1) / 255
    if heat is None:
        return pixels
    largest = heat.max(axis=(1, 2), keepdims=True)
    colors = colormaps["inferno"](heat / np.where(largest > 0, largest, 1))
    mixed: Pixels = (pixels + colors[..., :3]) / 2
    return mixed


def _draw_captioned(images: Pixels, captions: Sequence[Sequence[str]], columns: int) -> bytes:
    """Return a PNG of images (N, H, W, 3), each under the lines of its caption."""
    _, height, width, _ = images.shape
    per_inch = width / IMAGE_WIDTH
    above = round(CAPTION_LINE * (len(captions[0]) + 0.5) * per_inch)
    gap = round(GAP * per_inch)
    mosaic = _tile(images, columns, above, gap)

    def fill(axes: Any) -> None:
        axes.set_axis_off()
        axes.imshow(mosaic, interpolation="nearest", aspect="auto")
        for index, lines in enumerate(captions):
            row, column = divmod(index, columns)
            left = column * (gap + width) + gap - 0.5
            bottom = row * (above + height) + above - 0.5
            text = "\n".join(cut_end(printable(line), CAPTION_LENGTH) for line in lines)
            axes.annotate(text, (left, bottom), (0, 3), textcoords="offset points", fontsize=8)

    rows, columns_of_pixels, _ = mosaic.shape
    return draw(columns_of_pixels / per_inch, rows / per_inch, fill, reduce_colors=False)


def _draw_grid(images: Pixels) -> bytes:
    """Return a PNG of images (N, H, W, 3), about twice as wide as high, without captions."""
    gap = 1 + images.shape[2] // 20
    side = math.ceil(math.sqrt(2 * len(images)))
    columns = min(8, side + side % 2, len(images))
    mosaic = (255 * _tile(images, columns, gap, gap)).round().astype(np.uint8)
    scale = max(1, 830 // mosaic.shape[1])
    content = io.BytesIO()
    Image.fromarray(mosaic.repeat(scale, 0).repeat(scale, 1)).save(content, "png")
    return content.getvalue()


def _tile(images: Pixels, columns: int, above: int, gap: int) -> Pixels:
    """Lay images (N, H, W, 3) out on white, with `above` pixels above and `gap` left of each."""
    missing = -len(images) % columns
    padding = ((0, missing), (above, 0), (gap, 0), (0, 0))
    tiles = np.pad(images, padding, constant_values=1)
    _, height, width, _ = tiles.shape
    rows = tiles.reshape(-1, columns, height, width, 3).swapaxes(1, 2)
    return rows.reshape(-1, columns * width, 3)
