"""Images and labels in memory, and the subsets cut from them."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

_SUBSET_SEED = 10  # fixed: a subset depends on nothing but its size


class Normalization(NamedTuple):
    """Mean and deviation of R, G and B in 0–1; the reference's unless said."""

    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD


REFERENCE = Normalization()


@dataclass(frozen=True)
class Split:
    """Labeled images.

    Args:
        images: uint8 (N, 3, H, W), RGB, 0–255.
        labels: int64 (N), index into `classes`.
        classes: class names in index order.
        notes: what the user should be told about how the images were read.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def balanced_order(self) -> Tensor:
        """All indices, int64 (N), such that every prefix is as class-balanced as the labels allow.

        Shuffled within each class by a fixed seed, then taken from the classes in turn.
        """
        shuffled = np.random.RandomState(_SUBSET_SEED).permutation(len(self))
        labels = self.labels.numpy()[shuffled]
        rank = np.empty(len(self), dtype=np.int64)
        for label in range(len(self.classes)):
            of_class = np.flatnonzero(labels == label)
            rank[of_class] = np.arange(len(of_class))
        return torch.from_numpy(shuffled[np.lexsort((labels, rank))])

    def limited(self, size: int | None) -> "Split":
        """Return the class-balanced subset of `size` images; all of them for None or too many."""
        if size is None or size >= len(self):
            return self
        return self._take(self.balanced_order[:size])

    def cut(self, size: int) -> tuple["Split", "Split"]:
        """Return (the rest, a class-balanced part of `size` images)."""
        order = self.balanced_order
        return self._take(order[size:]), self._take(order[:size])

    def _take(self, indices: Tensor) -> "Split":
        indices = indices.sort().values
        return Split(self.images[indices], self.labels[indices], self.classes, self.notes)


def normalize(images: Tensor, normalization: Normalization = REFERENCE) -> Tensor:
    """Turn uint8 (N, 3, H, W) into float32 with mean 0 and deviation 1 a channel.

    (x / 255 - mean) / std, written as one multiplication and one addition.
    """
    mean = torch.tensor(normalization.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(normalization.std, device=images.device).view(3, 1, 1)
    return torch.addcmul(-mean / std, images.float(), 1 / (255 * std))
