"""The effective receptive field: which pixels really move a unit, on images, with real weights.

Source: W. Luo, Y. Li, R. Urtasun, R. Zemel, "Understanding the Effective Receptive Field in Deep
Convolutional Neural Networks" (2016): the gradient of the central unit of the last map with respect
to the input; here its magnitude, summed over channels and images.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cifar_cnn.analysis.layers import Layer, last_row, spatial_dim
from cifar_cnn.analysis.network import results_of, run_network
from cifar_cnn.analysis.receptive_field import analyze
from cifar_cnn.documents import analysis as documents
from cifar_cnn.errors import ModelError

Target = Literal["features", "logits"]
SHARES = (0.5, 0.9)
BATCH = 16


@dataclass(frozen=True)
class Square:
    """A square of pixels and the share of the mass it was asked to hold."""

    mass: float
    side: int
    top: int
    left: int

    def as_dict(self) -> documents.Square:
        """Return it as in `receptive-field --effective --json`."""
        return {"mass": self.mass, "side": self.side, "top": self.top, "left": self.left}


@dataclass(frozen=True)
class EffectiveField:
    """Where the mass of the gradient lies.

    Args:
        target: the central unit of the features, or each image's largest logit.
        samples: images accumulated over.
        layer: whose unit it is.
        unit: (row, column) of the unit in the layer's map; None for logits.
        theoretical: (top, left, bottom, right) of its receptive field in pixels, not clipped.
        heat: (H, W) float64, the mass of each pixel, 1 in total.
    """

    target: Target
    samples: int
    layer: str
    unit: tuple[int, int] | None
    theoretical: tuple[int, int, int, int]
    heat: NDArray[np.float64]

    @property
    def squares(self) -> tuple[Square, ...]:
        """The smallest squares that hold 50 % and 90 % of the mass."""
        return tuple(smallest_square(self.heat, share) for share in SHARES)

    @property
    def clipped(self) -> float:
        """Share of the theoretical field's positions that lie outside of the image."""
        top, left, bottom, right = self.theoretical
        height, width = self.heat.shape
        rows = min(bottom, height - 1) - max(top, 0) + 1
        columns = min(right, width - 1) - max(left, 0) + 1
        return 1.0 - float(rows * columns) / ((bottom - top + 1) * (right - left + 1))

    def as_dict(self) -> documents.EffectiveField:
        """Return it as in `receptive-field --effective --json`."""
        top, left, bottom, right = self.theoretical
        return {
            "target": self.target,
            "samples": self.samples,
            "layer": self.layer,
            "unit": list(self.unit) if self.unit else None,
            "theoretical": {
                "receptive_field": [bottom - top + 1, right - left + 1],
                "top": top,
                "left": left,
                "clipped": self.clipped,
            },
            "squares": [square.as_dict() for square in self.squares],
        }


def effective_receptive_field(
    model: nn.Module,
    images: Tensor,
    *,
    target: Target = "features",
    assume_pointwise: Collection[str] = (),
) -> EffectiveField:
    """Accumulate the gradient's magnitude over images.

    Args:
        model: a network with its weights.
        images: normalized float32 (N, 3, H, W).
        target: the central unit of the last map, or each image's largest logit.
        assume_pointwise: as for `receptive_field`.

    Raises:
        ModelError: the network cannot be followed, or has no map.
    """
    size = images.shape[2], images.shape[3]
    run, output = run_network(model, size, assume_pointwise)
    features = analyze("", run, output, 0).features
    if target == "features" and features is None:
        raise ModelError("the network has no map before it flattens: ask for --target logits")
    layer = last_row(run, output) if features is None or target == "logits" else features
    unit = None if target == "logits" else (layer.output_size[0] // 2, layer.output_size[1] // 2)
    heat = np.zeros(size)
    for batch in torch.split(images, BATCH):
        heat += _magnitude(model, batch, layer, unit)
    if not heat.sum():
        raise ModelError(f"the gradient at {layer.name} is zero on every image")
    ends = [
        (int(walk.low[i]), int(walk.high[i]))
        for walk, i in zip(layer.walks, unit or (0, 0), strict=True)
    ]
    return EffectiveField(
        target=target,
        samples=len(images),
        layer=layer.name,
        unit=unit,
        theoretical=(ends[0][0], ends[1][0], ends[0][1], ends[1][1]),
        heat=heat / heat.sum(),
    )


def smallest_square(heat: NDArray[np.float64], share: float) -> Square:
    """Return the smallest square that holds `share` of the heat, the fullest of its size."""
    height, width = heat.shape
    total = np.zeros((height + 1, width + 1))
    total[1:, 1:] = heat.cumsum(0).cumsum(1)
    for side in range(1, max(height, width) + 1):
        rows, columns = min(side, height), min(side, width)
        sums = (
            total[rows:, columns:]
            - total[:-rows, columns:]
            - total[rows:, :-columns]
            + total[:-rows, :-columns]
        )
        if sums.max() >= share * total[-1, -1] * (1 - 1e-12):
            top, left = np.unravel_index(sums.argmax(), sums.shape)
            return Square(share, side, int(top), int(left))
    raise AssertionError("the whole image holds all of the heat")


def _magnitude(
    model: nn.Module, images: Tensor, layer: Layer, unit: tuple[int, int] | None
) -> NDArray[np.float64]:
    leaf = images.clone().requires_grad_()
    tensor, _ = results_of(model, leaf, [layer.call.number])
    if unit is None:
        chosen = tensor.amax(1)
    else:
        rows, columns = (spatial_dim(axis, layer.field) for axis in layer.field.axes)
        assert rows is not None
        assert columns is not None
        index: list[Any] = [slice(None)] * tensor.dim()
        index[rows], index[columns] = unit
        chosen = tensor[tuple(index)]
    (gradient,) = torch.autograd.grad(chosen.sum(), leaf)
    total: NDArray[np.float64] = gradient.abs().double().sum((0, 1)).cpu().numpy()
    return total
