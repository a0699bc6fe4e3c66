"""The effective receptive field: the gradient of a unit with respect to each image pixel.

Source: W. Luo, Y. Li, R. Urtasun, R. Zemel, "Understanding the Effective Receptive Field in Deep
Convolutional Neural Networks" (2016): the gradient of the central unit of the last map with respect
to the input; here its magnitude, summed over channels and images.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cifar_cnn.analysis.layers import Layer, last_row, layers_of
from cifar_cnn.analysis.network import results_of, run_network
from cifar_cnn.analysis.receptive_field import last_map
from cifar_cnn.analysis.results import EffectiveField, Square, Target, TheoreticalField
from cifar_cnn.errors import ModelError

SHARES = (0.5, 0.9)
BATCH = 16


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
    features = last_map(run, output, layers_of(run))
    if target == "features" and features is None:
        raise ModelError("the network has no map before it flattens: ask for --target logits")
    layer = last_row(run, output) if features is None or target == "logits" else features
    unit = None if target == "logits" else (layer.output_size[0] // 2, layer.output_size[1] // 2)
    at: list[Any] = [slice(None)] * len(layer.value.field.shape)
    if unit is not None:
        at[layer.dims[0]], at[layer.dims[1]] = unit
    heat = np.zeros(size)
    for batch in torch.split(images, BATCH):
        leaf = batch.clone().requires_grad_()
        tensor, _ = results_of(model, leaf, [layer.call.number])
        chosen = tensor.amax(1) if unit is None else tensor[tuple(at)]
        (gradient,) = torch.autograd.grad(chosen.sum(), leaf)
        heat += gradient.abs().double().sum((0, 1)).cpu().numpy()
    if not heat.sum():
        raise ModelError(f"the gradient at {layer.name} is zero on every image")
    heat /= heat.sum()
    return EffectiveField(
        target=target,
        samples=len(images),
        layer=layer.name,
        unit=unit,
        theoretical=_theoretical(layer, unit or (0, 0), size),
        squares=tuple(smallest_square(heat, share) for share in SHARES),
        heat=heat,
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
            return Square(mass=share, side=side, top=int(top), left=int(left))
    raise AssertionError("the whole image holds all of the heat")


def _theoretical(layer: Layer, unit: tuple[int, int], size: tuple[int, int]) -> TheoreticalField:
    """Return the field of a unit, and the share of its positions outside of the image."""
    (top, bottom), (left, right) = (
        (int(walk.low[at]), int(walk.high[at])) for walk, at in zip(layer.walks, unit, strict=True)
    )
    height, width = bottom - top + 1, right - left + 1
    rows = min(bottom, size[0] - 1) - max(top, 0) + 1
    columns = min(right, size[1] - 1) - max(left, 0) + 1
    clipped = 1 - rows * columns / (height * width)
    return TheoreticalField(receptive_field=(height, width), top=top, left=left, clipped=clipped)
