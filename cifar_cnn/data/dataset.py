"""Images and labels in memory: subsets, sizes and normalization."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cifar_cnn.errors import DataError, SettingsError, counted, first_few

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

_SUBSET_SEED = 10  # fixed: a subset depends on nothing but its size
_CHUNK = 1 << 25
"""Pixels held as floats at once."""

Progress = Callable[[str, Path | None, int, int], None]
"""Is called with the kind of work (decoding, downloading …), its folder or file, the units (images,
bytes, steps …) done, and their total. Of work on files, done is 0 in the first call."""


class Normalization(NamedTuple):
    """Mean and standard deviation of R, G and B in 0–1; the reference's by default."""

    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD


REFERENCE = Normalization()


def _rgb(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def parse_normalization(text: str) -> Normalization:
    """Return what `cifar10` or MEAN/STD names: `0.5/0.5`, or R,G,B/R,G,B, for colors in 0–1."""
    if text == "cifar10":
        return REFERENCE
    number = r"\d*\.?\d+"
    if re.fullmatch(rf"{number}(,{number},{number})?/{number}(,{number},{number})?", text):
        mean, std = ([float(each) for each in side.split(",")] for side in text.split("/"))
        if min(std) > 0:
            return Normalization(_rgb((mean * 3)[:3]), _rgb((std * 3)[:3]))
    raise SettingsError(
        f"normalization {text!r} is unknown: give cifar10, dataset, or MEAN/STD of colors in 0–1, "
        "as 0.5/0.5 or 0.49,0.48,0.45/0.25,0.24,0.26 (R,G,B)"
    )


@dataclass(frozen=True)
class Split:
    """Labeled images; `notes` tell the user how they were read."""

    images: Tensor  # uint8 (N, 3, H, W), RGB
    labels: Tensor  # int64 (N), indices into `classes`
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()  # of each image, or its place in the data set: test/00017
    name: str = ""  # train, val or test
    test_sha256: str | None = None  # of the test images' names, if they are cut from class folders

    def __len__(self) -> int:
        return len(self.labels)

    def limited(self, size: int | None) -> "Split":
        """Return a subset of `size` images, as class-balanced as the labels allow.

        A smaller subset is part of a larger one; None, or too large a size, keeps all images.
        """
        return self._take(choose_balanced(self.labels.numpy(), size))

    def cut(self, size: int) -> tuple["Split", "Split"]:
        """Return (the rest, a part of `size` images) with the same share of each class.

        Images left over by rounding go to the classes that lost most by it.
        """
        labels = self.labels.numpy()
        shuffled, rank = _ranks(labels)
        shares, lost = np.divmod(np.bincount(labels) * size, len(labels))
        shares[np.argsort(-lost, kind="stable")[: size - shares.sum()]] += 1
        in_part = rank < shares[labels[shuffled]]
        return self._take(np.sort(shuffled[~in_part])), self._take(np.sort(shuffled[in_part]))

    def among(self, classes: tuple[str, ...]) -> "Split":
        """Return the split with labels into `classes`, which include its own."""
        places = torch.tensor([classes.index(name) for name in self.classes])
        labels = places[self.labels]
        empty = describe_empty_classes(classes, labels.numpy(), self.name)
        return replace(self, labels=labels, classes=classes, notes=(*self.notes, *empty))

    def resized(self, size: tuple[int, int]) -> "Split":
        """Return the split with images of `size` (H, W), by anti-aliased bilinear interpolation."""
        if tuple(self.images.shape[-2:]) == size:
            return self
        images = torch.from_numpy(allocate(len(self), size))
        at_once = max(1, _CHUNK // (size[0] * size[1]))
        for first in range(0, len(self), at_once):
            part = self.images[first : first + at_once].float()
            resized = F.interpolate(part, size, mode="bilinear", antialias=True)
            images[first : first + at_once] = resized.round()
        return replace(self, images=images)

    def _take(self, indices: NDArray[np.int64]) -> "Split":
        if len(indices) == len(self):
            return self
        files = tuple(self.files[index] for index in indices) if self.files else ()
        return replace(self, images=self.images[indices], labels=self.labels[indices], files=files)


def describe_empty_classes(
    classes: Iterable[str], labels: NDArray[np.int64], name: str
) -> tuple[str, ...]:
    """Return a note on the classes without images in a split, if there are any."""
    empty = [each for label, each in enumerate(classes) if label not in labels]
    note = f"no {name} images of {first_few(empty)}: their accuracy is not measured"
    return (note,) if empty else ()


def choose_balanced(labels: NDArray[np.int64], size: int | None) -> NDArray[np.int64]:
    """Return the indices of the images that `Split.limited` takes, ascending."""
    if size is None or size >= len(labels):
        return np.arange(len(labels))
    shuffled, rank = _ranks(labels)
    order = shuffled[np.lexsort((labels[shuffled], rank))]
    return np.sort(order[:size])


def _ranks(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all indices (N), shuffled by a fixed seed, and each one's rank within its class."""
    shuffled = np.random.RandomState(_SUBSET_SEED).permutation(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels[shuffled] == label)
        rank[of_class] = np.arange(len(of_class))
    return shuffled, rank


def allocate(count: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return memory for images (count, 3, H, W) of `size`, or raise a DataError."""
    try:
        return np.empty((count, 3, *size), dtype=np.uint8)
    except MemoryError as error:
        height, width = size
        gigabytes = count * 3 * height * width / 1e9
        raise DataError(
            f"{counted(count, 'image')} of {height}x{width} do not fit into memory "
            f"({gigabytes:,.1f} GB): choose a smaller --input-size, or fewer images"
        ) from error


def measure(images: Tensor) -> Normalization:
    """Return mean and deviation of each channel of uint8 images (N, 3, H, W), from exact sums.

    A channel of a single value gets a deviation of 1, and becomes 0.
    """
    values = torch.arange(256)
    means, deviations = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256)
        count, total, squares = (int((counts * values**power).sum()) for power in range(3))
        means.append(total / (255 * count))
        deviations.append(math.sqrt(count * squares - total**2) / (255 * count) or 1.0)
    return Normalization(_rgb(means), _rgb(deviations))


def normalize(images: Tensor, normalization: Normalization = REFERENCE) -> Tensor:
    """Return float32 (x / 255 - mean) / std of uint8 images (N, 3, H, W)."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in normalization)
    offset, factor = (
        each.to(images.device, non_blocking=True) for each in (-mean / std, 1 / (255 * std))
    )
    return torch.addcmul(offset, images.float(), factor)
