"""How good predictions are: loss, accuracy, confusion and calibration."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Evaluation:
    """Measures of a network on one split; loss and accuracy as fractions, not percent.

    Args:
        loss: mean negative log-likelihood in nats.
        correct: images whose most probable class is their own.
        samples: images measured.
        confusion: images of each true class (row) by predicted class (column).
        calibration_error: expected calibration error, see `measure`.
    """

    loss: float
    correct: int
    samples: int
    confusion: list[list[int]]
    calibration_error: float

    @property
    def accuracy(self) -> float:
        """Fraction of images that are correct."""
        return self.correct / self.samples


def measure(log_probabilities: Tensor, labels: Tensor) -> Evaluation:
    """Measure float32 log-probabilities (N, classes) against int64 labels (N).

    The calibration error is the mean of |accuracy - confidence| over 15 equal bins of confidence,
    weighted by the images in each (Guo et al., "On Calibration of Modern Neural Networks", 2017,
    equation 3).
    """
    count, classes = log_probabilities.shape
    predicted = log_probabilities.argmax(dim=1)
    confusion = torch.bincount(labels * classes + predicted, minlength=classes * classes)
    calibration = calibrate(log_probabilities, labels)
    return Evaluation(
        loss=F.nll_loss(log_probabilities.double(), labels).item(),
        correct=int((predicted == labels).sum()),
        samples=count,
        confusion=confusion.view(classes, classes).tolist(),
        calibration_error=(calibration.hits - calibration.confidence).abs().sum().item() / count,
    )


@dataclass(frozen=True)
class Calibration:
    """What happened at each level of confidence, in CALIBRATION_BINS equal bins from 0 to 1.

    Args:
        samples: float64 (bins), images whose confidence is in the bin.
        hits: float64 (bins), those that are correct.
        confidence: float64 (bins), the sum of their confidences.
    """

    samples: Tensor
    hits: Tensor
    confidence: Tensor


def calibrate(log_probabilities: Tensor, labels: Tensor) -> Calibration:
    """Sort float32 log-probabilities (N, classes), with labels (N), by the confidence in them."""
    confidence, predicted = log_probabilities.double().exp().max(dim=1)
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1, dtype=torch.float64)
    bins = torch.bucketize(confidence.clamp(max=1), edges[1:-1])
    sums = [
        torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, bins, values)
        for values in (torch.ones_like(confidence), (predicted == labels).double(), confidence)
    ]
    return Calibration(*sums)
