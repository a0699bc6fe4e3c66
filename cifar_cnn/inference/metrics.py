"""How good predictions are: loss, accuracy, confusion and calibration."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_cnn.documents import inference as documents

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Evaluation:
    """Measures of a network on one split; accuracy as a fraction, not percent.

    An image whose answer is NaN is wrong, and counts nowhere else than in its class.

    Args:
        loss: mean negative log-likelihood in nats.
        correct: images whose most probable class is their own.
        samples: images measured.
        confusion: images of each true class (row) by predicted class (column).
        calibration_error: expected calibration error, see `measure`.
        unanswered: images of each class whose answer is NaN.
    """

    loss: float
    correct: int
    samples: int
    confusion: list[list[int]]
    calibration_error: float
    unanswered: list[int]

    @property
    def accuracy(self) -> float:
        """Fraction of images that are correct."""
        return self.correct / self.samples

    @property
    def per_class(self) -> list["ClassScores"]:
        """The scores of each class, in index order."""
        columns = [sum(column) for column in zip(*self.confusion, strict=True)]
        return [
            ClassScores(sum(row) + self.unanswered[index], columns[index], row[index])
            for index, row in enumerate(self.confusion)
        ]

    @property
    def macro(self) -> documents.MacroScores:
        """Mean precision, recall and F1 of the classes that occur, as truth or as answer."""
        there = [each for each in self.per_class if each.samples + each.predicted]
        return {
            "precision": sum(each.precision for each in there) / len(there),
            "recall": sum(each.recall or 0.0 for each in there) / len(there),
            "f1": sum(each.f1 or 0.0 for each in there) / len(there),
        }

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images."""
        recalls = [each.recall for each in self.per_class if each.recall is not None]
        return sum(recalls) / len(recalls)


@dataclass(frozen=True)
class ClassScores:
    """How well one class is told from the others.

    Args:
        samples: images of it.
        predicted: images that were taken for it.
        hits: images of it that were taken for it.
    """

    samples: int
    predicted: int
    hits: int

    @property
    def precision(self) -> float:
        """Share of it among what was taken for it; 0 where nothing was."""
        return self.hits / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float | None:
        """Share of its images that were taken for it; None where it has none."""
        return self.hits / self.samples if self.samples else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of both; None for a class that neither has images nor was an answer."""
        either = self.samples + self.predicted
        return 2 * self.hits / either if either else None


def measure(log_probabilities: Tensor, labels: Tensor) -> Evaluation:
    """Measure float32 log-probabilities (N, classes) against int64 labels (N).

    The calibration error is the mean of |accuracy - confidence| over 15 equal bins of confidence,
    weighted by the images in each (Guo et al., "On Calibration of Modern Neural Networks", 2017,
    equation 3).
    """
    count, classes = log_probabilities.shape
    answered = is_answer(log_probabilities)
    unanswered = torch.bincount(labels[~answered], minlength=classes)
    log_probabilities, labels = log_probabilities[answered], labels[answered]
    predicted = log_probabilities.argmax(dim=1)
    confusion = torch.bincount(labels * classes + predicted, minlength=classes * classes)
    calibration = calibrate(log_probabilities, labels)
    return Evaluation(
        loss=F.nll_loss(log_probabilities.double(), labels).item(),
        correct=int((predicted == labels).sum()),
        samples=count,
        confusion=confusion.view(classes, classes).tolist(),
        calibration_error=(calibration.hits - calibration.confidence).abs().sum().item()
        / max(len(labels), 1),
        unanswered=unanswered.tolist(),
    )


def is_answer(log_probabilities: Tensor) -> Tensor:
    """Return bool (N): which rows of log-probabilities (N, classes) have no NaN."""
    return ~log_probabilities.isnan().any(dim=1)


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
