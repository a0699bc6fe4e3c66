"""What training makes small."""

import torch.nn.functional as F
from torch import Tensor

from cifar_cnn.data.mixup import Mix


def classification_loss(
    log_probabilities: Tensor, labels: Tensor, smoothing: float, mix: Mix | None = None
) -> Tensor:
    """Return the mean negative log-likelihood in nats, with label smoothing.

    Args:
        log_probabilities: float32 or float64 (N, classes).
        labels: int64 (N); with `mix`, those of partners from elsewhere follow.
        smoothing: share of the target spread evenly over all classes (Szegedy et al., "Rethinking
            the Inception Architecture", 2016, section 7).
        mix: how the images were mixed; each label then counts by its image's share (Zhang et al.,
            "mixup", 2018, equation 1).
    """
    if mix is None:
        loss = F.nll_loss(log_probabilities, labels)
    else:
        own = F.nll_loss(log_probabilities, labels[: len(log_probabilities)], reduction="none")
        others = F.nll_loss(log_probabilities, labels[mix.partner], reduction="none")
        loss = own.lerp(others, mix.share.to(own.dtype)).mean()
    if smoothing == 0:
        return loss
    return (1 - smoothing) * loss - smoothing * log_probabilities.mean()
