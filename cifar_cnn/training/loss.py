"""What a network is told of its answers: the loss of training, and how much each class counts."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_cnn.data.augment import Mix

NAMED = 10
"""Most classes whose weights are listed."""


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Return float64 (classes): images / (classes that occur * images of the class); 0 for none.

    Their mean over the images is 1. Source: scikit-learn's `compute_class_weight("balanced")`.

    Args:
        labels: int64 (N), of all training images.
        classes: how many there are.
    """
    counts = torch.bincount(labels, minlength=classes).double()
    weights = len(labels) / ((counts > 0).sum() * counts)
    return weights.where(counts > 0, 0.0)


def describe_weights(weights: Tensor, classes: Sequence[str]) -> str:
    """Return the line that says how much each class counts; of many, the lightest and heaviest."""
    pairs = [*zip(weights.tolist(), classes, strict=True)]
    if len(pairs) <= NAMED:
        return f"class weights: {', '.join(f'{name} {weight:.3g}' for weight, name in pairs)}"
    (least, light), (most, heavy) = min(pairs), max(pairs)
    return f"class weights: from {least:.3g} ({light}) to {most:.3g} ({heavy})"


def classification_loss(
    log_probabilities: Tensor,
    labels: Tensor,
    smoothing: float,
    mix: Mix | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the mean negative log-likelihood in nats, with label smoothing.

    Args:
        log_probabilities: float32 or float64 (N, classes).
        labels: int64 (N); with `mix`, those of partners from elsewhere follow.
        smoothing: fraction of the target spread evenly over all classes (Szegedy et al.,
            "Rethinking the Inception Architecture", 2016, section 7).
        mix: how the images were mixed; each label then counts by its image's fraction (Zhang et
            al., "mixup", 2018, equation 1).
        weights: (classes), factors of each class's part of the target, as in torch's cross-entropy
            with probabilities for targets: the sum over the images is divided by their number, not
            by the sum of their weights, so that parts of a batch add up to it.
    """

    def each(labels: Tensor) -> Tensor:
        return F.nll_loss(log_probabilities, labels, weights, reduction="none")

    if weights is not None:
        weights = weights.to(log_probabilities.dtype)
    if mix is not None:
        own, others = each(labels[: len(log_probabilities)]), each(labels[mix.partner])
        loss = own.lerp(others, mix.fraction.to(own.dtype)).mean()
    elif weights is not None:
        loss = each(labels).mean()
    else:
        loss = F.nll_loss(log_probabilities, labels)
    if smoothing == 0:
        return loss
    spread = log_probabilities if weights is None else log_probabilities * weights
    return (1 - smoothing) * loss - smoothing * spread.mean()
