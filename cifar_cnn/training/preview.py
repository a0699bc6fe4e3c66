"""What the network sees, without training it."""

import torch
from torch import Tensor

from cifar_cnn.data.augment import apply, draw
from cifar_cnn.data.dataset import Split
from cifar_cnn.data.randomness import Purpose, generator
from cifar_cnn.settings import Settings


def first_batch(settings: Settings, train: Split) -> Tensor:
    """Return the input of the run's first step: augmented, normalised float32 (N, 3, H, W)."""
    order = torch.randperm(len(train), generator=generator(settings.seed, Purpose.ORDER, 0))
    chosen = order[: settings.batch_size]
    source = generator(settings.seed, Purpose.AUGMENTATION, 0, 0)
    draws = draw(settings, len(chosen), source)
    return apply(train.images[chosen], draws, settings.cutout_size)
