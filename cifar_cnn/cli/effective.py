"""What `receptive-field --effective` needs beside the network: its weights, and images."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cifar_cnn.analysis.effective import EffectiveField, Target
    from cifar_cnn.settings import Settings


def accumulate(
    settings: "Settings",
    file: Path | None,
    *,
    samples: int,
    target: "Target",
    assume_pointwise: Collection[str],
) -> "EffectiveField":
    """Compute the effective field on test images, with a checkpoint's weights or fresh ones.

    Raises:
        UserError: the checkpoint does not fit the network, or the images are unusable.
    """
    import torch

    from cifar_cnn.analysis.effective import effective_receptive_field
    from cifar_cnn.data.dataset import normalise
    from cifar_cnn.data.load import load_test
    from cifar_cnn.inference.checkpoint import Checkpoint, load_weights, read_checkpoint
    from cifar_cnn.models import build_model

    data = load_test(settings).limited(samples)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = build_model(settings.model, num_classes=len(data.classes))
    if file is not None:
        stored = read_checkpoint(file)
        state_dict = stored.state_dict if isinstance(stored, Checkpoint) else stored
        load_weights(model, state_dict, file)
    return effective_receptive_field(
        model, normalise(data.images), target=target, assume_pointwise=assume_pointwise
    )
