"""Random draws without hidden state: each is a function of (seed, purpose, epoch, step) alone."""

from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a draw is for; two purposes never share their numbers."""

    ORDER = 1
    AUGMENTATION = 2
    NETWORK = 3
    MIXUP = 4


def derive_seed(seed: int, purpose: Purpose, epoch: int = 0, step: int = 0) -> int:
    """Return a 64-bit seed for one draw, by numpy's SeedSequence hash of its coordinates."""
    sequence = np.random.SeedSequence((seed, purpose, epoch, step))
    return int(sequence.generate_state(1, np.uint64)[0])


def generator(seed: int, purpose: Purpose, epoch: int, step: int = 0) -> torch.Generator:
    """Return a CPU generator at the start of that draw: the same numbers on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, epoch, step))


def seed_network(device: torch.device, seed: int) -> None:
    """Start the network's own draws on that device, and on the CPU, at this 64-bit seed."""
    if device.type == "cpu":  # only its own: reaching for a GPU takes a tenth of a millisecond
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
