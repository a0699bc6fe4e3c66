"""What `receptive-field --effective` needs beside the network: its weights, and images."""

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cifar_cnn.analysis.effective import EffectiveField, Target
    from cifar_cnn.inference.trained import StoredNetwork
    from cifar_cnn.settings import Settings


def accumulate(
    settings: "Settings",
    stored: "StoredNetwork | None",
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
    from cifar_cnn.data.dataset import REFERENCE, normalize
    from cifar_cnn.data.load import load_test
    from cifar_cnn.models import build_model

    data = load_test(settings).limited(samples)
    normalization = REFERENCE
    if stored:
        trained = stored.build(None if stored.checkpoint else data.classes)
        model, normalization = trained.model, trained.normalization
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = build_model(settings.model, num_classes=len(data.classes))
    images = normalize(data.images, normalization)
    return effective_receptive_field(
        model, images, target=target, assume_pointwise=assume_pointwise
    )
