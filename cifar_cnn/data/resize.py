"""Another image size than the data set's own."""

import dataclasses

import torch
import torch.nn.functional as F

from cifar_cnn.data.dataset import Split
from cifar_cnn.data.memory import check_memory

_CHUNK = 1 << 25
"""Pixels held as floats at once."""


def resize(split: Split, size: tuple[int, int]) -> Split:
    """Return the split with images of `size` (H, W), by anti-aliased bilinear interpolation.

    Raises:
        DataError: there is no memory for them.
    """
    if tuple(split.images.shape[-2:]) == size:
        return split
    check_memory(len(split), size)
    at_once = max(1, _CHUNK // (size[0] * size[1]))
    chunks = [
        F.interpolate(chunk.float(), size, mode="bilinear", antialias=True).round().byte()
        for chunk in torch.split(split.images, at_once)
    ]
    return dataclasses.replace(split, images=torch.cat(chunks))
