"""Another image size than the data set's own."""

import dataclasses

import torch
import torch.nn.functional as F

from cifar_cnn.data.dataset import Split

_CHUNK = 1_000


def resize(split: Split, size: tuple[int, int]) -> Split:
    """Return the split with images of `size` (H, W), by anti-aliased bilinear interpolation."""
    if tuple(split.images.shape[-2:]) == size:
        return split
    chunks = [
        F.interpolate(chunk.float(), size, mode="bilinear", antialias=True).round().byte()
        for chunk in torch.split(split.images, _CHUNK)
    ]
    return dataclasses.replace(split, images=torch.cat(chunks))
