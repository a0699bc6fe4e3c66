"""What training makes small."""

import torch.nn.functional as F
from torch import Tensor


def classification_loss(log_probabilities: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the mean negative log-likelihood in nats, with label smoothing.

    Args:
        log_probabilities: float32 (N, classes).
        labels: int64 (N).
        smoothing: share of the target spread evenly over all classes (Szegedy et al., "Rethinking
            the Inception Architecture", 2016, section 7).
    """
    loss = F.nll_loss(log_probabilities, labels)
    if smoothing == 0:
        return loss
    return (1 - smoothing) * loss - smoothing * log_probabilities.mean()
