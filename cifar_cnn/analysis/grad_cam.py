"""Grad-CAM: where in an image a network finds what speaks for a class.

Source: R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization" (ICCV 2017), equations 1 and 2. The map is the last one before global pooling or
flattening, the score that of the class before a softmax. Enlarging the map as if it filled the
image would move the heat by up to half a jump: here a unit is where its receptive field is.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cifar_cnn.analysis.graph import Value
from cifar_cnn.analysis.layers import Walk, describe, layers_of, spatial_dim
from cifar_cnn.analysis.operations import OPERATIONS
from cifar_cnn.analysis.propagate import Propagated, Step, local_part, propagate
from cifar_cnn.analysis.receptive_field import used_values
from cifar_cnn.analysis.recorder import Recorder
from cifar_cnn.analysis.trace import evaluating, trace
from cifar_cnn.errors import UserError
from cifar_cnn.runtime import torch_threads

SOFTMAX = {"softmax", "log_softmax"}


class GradCam:
    """Computes the heat of images for classes; the network stays as it is, mode and gradients too.

    Args:
        model: with its weights; its last map with more than one unit is used.
        input_size: (H, W) of the images.

    Raises:
        ModelError: the network cannot be followed.
        UserError: it has no map.
    """

    def __init__(self, model: nn.Module, input_size: tuple[int, int]) -> None:
        graph = trace(model, input_size, None)
        unknown = {operation.op for operation in graph.operations} - OPERATIONS.keys()
        propagated = propagate(graph, unknown)  # where it has maps, not what they see
        used = used_values(graph)
        maps = [
            row
            for row in layers_of(propagated)
            if row.is_map and max(row.output_size) > 1 and used & set(row.step.operation.outputs)
        ]
        if not maps:
            raise UserError(
                "Grad-CAM needs a map before the network's global pooling or flattening, and "
                f"{type(model).__name__} has none"
            )
        assert graph.output is not None
        self.layer, self.size = maps[-1].name, maps[-1].output_size
        self._model = model
        self._map_at = propagated.steps.index(maps[-1].step)
        self._score_at = _made_before_softmax(propagated, graph.output)
        step = maps[-1].step
        self._dims = [spatial_dim(axis, step.field) for axis in step.field.axes]
        local = Step(step.operation, local_part(step.field), step.window, step.rearranges)
        walks = zip(describe(local).walks, input_size, strict=True)
        self._spread = [_spread(walk, side) for walk, side in walks]

    def __call__(self, images: Tensor, classes: Iterable[int]) -> NDArray[np.float32]:
        """Return float32 heat (N, h, w), none below 0, of each image for its class.

        Args:
            images: normalized float32 (N, 3, H, W), on the network's device.
            classes: index of the class that is asked for, of each image.

        Raises:
            UserError: the network lets no gradient through.
        """
        with torch_threads(1):  # one small image at a time: others would only be waited for
            return np.stack([self._heat(*each) for each in zip(images, classes, strict=True)])

    def over_images(self, heat: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return heat (N, h, w) of units as that of pixels (N, H, W), linear between units."""
        spread: NDArray[np.float32] = np.einsum("nhw,hy,wx->nyx", heat, *self._spread)
        return spread

    def _heat(self, image: Tensor, label: int) -> NDArray[np.float32]:
        with evaluating(self._model), torch.enable_grad():
            leaf = image[None].clone().requires_grad_().clone()  # a copy may be written to in place
            recorder = Recorder(self._model, leaf, None)
            with recorder.running():
                self._model(leaf)
            maps, scores = (recorder.graph.tensors[i] for i in (self._map_at, self._score_at))
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
        assert rows is not None
        assert columns is not None
        weights = gradient.mean((rows, columns), keepdim=True)  # equation 1
        others = [dim for dim in range(maps.dim()) if dim not in self._dims]
        heat = (weights * maps).sum(others).relu()  # equation 2
        upright = heat if rows < columns else heat.T
        found: NDArray[np.float32] = upright.detach().float().cpu().numpy()
        return found


def _spread(walk: Walk, side: int) -> NDArray[np.float32]:
    """Return the share (units, pixels) that each unit along an axis has in the heat of a pixel.

    Units that see no pixel have none. Those whose fields do not follow each other, as all see the
    whole image, fill it evenly.
    """
    sees, count = walk.sees, len(walk.low)
    centers = ((walk.low + walk.high) / 2)[sees]
    if (np.diff(centers) <= 0).any():
        centers = ((np.arange(count) + 0.5) * side / count - 0.5)[sees]
    pixels = np.arange(side)
    shares = [np.interp(pixels, centers, unit[sees]) for unit in np.eye(count)]
    return np.stack(shares).astype(np.float32)


def _made_before_softmax(propagated: Propagated, output: Value) -> int:
    """Return which operation makes the scores: the output, or what its last softmax was given."""
    made_by: dict[Any, int] = {
        value: at for at, step in enumerate(propagated.steps) for value in step.operation.outputs
    }
    found, value = made_by[output], output
    while value in made_by:
        step = propagated.steps[made_by[value]]
        inputs = step.operation.inputs
        if step.operation.op in SOFTMAX and inputs[0] in made_by:
            found = made_by[inputs[0]]
        elif len(inputs) != 1 or not (step.rearranges or step.operation.op == "log"):
            break
        value = inputs[0]
    return found
