"""Where a trained network's answers come from: Grad-CAM of images, as numbers and as a picture."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray

from cifar_cnn.analysis.grad_cam import GradCam
from cifar_cnn.data.dataset import normalize
from cifar_cnn.data.images import read_images
from cifar_cnn.errors import UserError
from cifar_cnn.inference.predict import Prediction
from cifar_cnn.models.guard import guarded
from cifar_cnn.report.image_pictures import draw_explained
from cifar_cnn.storage.network import Network

MOST_EXPLAINED = 16
"""Images in one picture."""


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
        return draw_explained(list(pixels), heat, [each.file for each in shown], said)

    def about(self, count: int) -> str:
        """Say what the picture of `count` images shows."""
        many = f", the first {MOST_EXPLAINED} of {count:,} images" if count > MOST_EXPLAINED else ""
        return self.where + many
