"""Grad-CAM: which places of an image raise the score of a class.

Source: R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization" (ICCV 2017), equations 1 and 2. The map is the last one before global pooling or
flattening, the score that of the class before a softmax. Enlarging the map as if it filled the
image would move the heat by up to half a jump: here a unit is where its receptive field is.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cifar_cnn.analysis.layers import Walk, external_inputs, last_row, layers_of, local_walks
from cifar_cnn.analysis.network import results_of, run_network
from cifar_cnn.analysis.receptive_field import last_map
from cifar_cnn.analysis.run import Run
from cifar_cnn.analysis.steps import Kind, Value
from cifar_cnn.errors import UserError
from cifar_cnn.runtime import torch_threads

SOFTMAX = {"softmax", "log_softmax"}


class GradCam:
    """Computes the heat of images for classes, from the last map with more than one unit.

    The network stays as it is, its mode and gradients too.
    """

    def __init__(self, model: nn.Module, input_size: tuple[int, int]) -> None:
        run, output = run_network(model, input_size, is_strict=False)  # where maps are, not fields
        rows = [row for row in layers_of(run) if max(row.output_size) > 1]
        row = last_map(run, output, rows)
        if row is None:
            raise UserError(
                "Grad-CAM needs a map before the network's global pooling or flattening, and "
                f"{type(model).__name__} has none"
            )
        self.layer, self.size = row.name, row.output_size
        self._model = model
        self._calls = [row.call.number, _before_softmax(run, output)]
        self._dims = row.dims
        walks = zip(local_walks(row), input_size, strict=True)
        self._spread = [_spread(walk, side) for walk, side in walks]

    def __call__(self, images: Tensor, classes: Iterable[int]) -> NDArray[np.float32]:
        """Return float32 heat (N, h, w), none below 0, of each image for the class of this index.

        Images are normalized float32 (N, 3, H, W), on the network's device.
        """
        with torch_threads(1):  # one small image at a time: others would only be waited for
            return np.stack([self._heat(*each) for each in zip(images, classes, strict=True)])

    def over_images(self, heat: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return heat (N, h, w) of units as that of pixels (N, H, W), linear between units."""
        spread: NDArray[np.float32] = np.einsum("nhw,hy,wx->nyx", heat, *self._spread)
        return spread

    def _heat(self, image: Tensor, label: int) -> NDArray[np.float32]:
        leaf = image[None].clone().requires_grad_()
        maps, scores, _ = results_of(self._model, leaf, self._calls)
        gradient = None
        if maps.requires_grad and scores.requires_grad:
            score = scores.flatten()[label]
            (gradient,) = torch.autograd.grad(score, maps, allow_unused=True)
        if gradient is None:
            raise UserError(
                f"Grad-CAM needs the gradient of the answer at {self.layer}, and the network lets "
                "none through: it detaches, or runs without gradients"
            )
        rows, columns = self._dims
        weights = gradient.mean((rows, columns), keepdim=True)  # equation 1
        others = [dim for dim in range(maps.dim()) if dim not in self._dims]
        heat = (weights * maps).sum(others).relu()  # equation 2
        upright = heat if rows < columns else heat.T
        array: NDArray[np.float32] = upright.detach().float().cpu().numpy()
        return array


def _spread(walk: Walk, side: int) -> NDArray[np.float32]:
    """Return the share (units, pixels) that each unit along an axis has in the heat of a pixel.

    Units that see no pixel have none. Those whose fields do not follow each other, as all see the
    whole image, fill it evenly.
    """
    sees, count = walk.low <= walk.high, len(walk.low)
    centers = ((walk.low + walk.high) / 2)[sees]
    if (np.diff(centers) <= 0).any():
        centers = ((np.arange(count) + 0.5) * side / count - 0.5)[sees]
    pixels = np.arange(side)
    shares = [np.interp(pixels, centers, unit[sees]) for unit in np.eye(count)]
    return np.stack(shares).astype(np.float32)


def _before_softmax(run: Run, output: Value) -> int:
    """Return the number of the call that computes the logits, before a final softmax."""
    calls = {call.value.made: call for call in run.calls.rows}
    value, number = output, last_row(run, output).call.number
    while value.made in calls:
        call = calls[value.made]
        inputs = external_inputs(run, call)
        is_moved = all(run.steps[index].kind == Kind.MOVE for index in call.steps)
        if call.function in SOFTMAX and inputs[0].made in calls:
            number = calls[inputs[0].made].number
        elif len(inputs) != 1 or not (is_moved or call.function == "log"):
            break
        value = inputs[0]
    return number
