"""How good predictions are: loss, accuracy, confusion and calibration."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_cnn.data.dataset import Split
from cifar_cnn.errors import NetworkWarning, RunError, counted, first_few
from cifar_cnn.results import NotInJson, Result, Share

CALIBRATION_BINS = 15


class ClassScores(Result):
    """The scores of a class; None if there is nothing to divide by.

    `precision` is its share of the images that were taken for it, `recall` and `accuracy` the share
    of its images that were taken for it, `f1` the harmonic mean of both.
    """

    accuracy: Share | None
    samples: int
    precision: Share
    recall: Share | None
    f1: Share | None


class MacroScores(Result):
    """Means over the classes that occur, as truth or as answer."""

    precision: Share
    recall: Share
    f1: Share


class Evaluation(Result):
    """Measures of a network on one split; accuracies are fractions.

    An image whose answer is NaN is wrong, and counts nowhere else than in its class. The loss is
    the mean negative log-likelihood in nats, `balanced_accuracy` the mean recall of the classes
    that have images, `confusion` the images of each true class (row) by predicted class (column).
    """

    samples: int
    loss: float
    accuracy: Share
    balanced_accuracy: Share
    macro: MacroScores
    per_class: dict[str, ClassScores]
    confusion: list[list[int]]
    calibration_error: Share  # see `measure`
    correct: NotInJson[int]


def judge(answers: Tensor, data: Split) -> Evaluation:
    """Compare log-probabilities (N, classes) with labels, with a warning for NaN in some."""
    unanswered = (~is_answer(answers)).nonzero().flatten().tolist()
    if 0 < len(unanswered) < len(data):
        names = first_few([data.files[index] for index in unanswered])
        warnings.warn(
            f"the network's answer is NaN for {len(unanswered)} of "
            f"{counted(len(data), 'image')}, which counts as wrong: {names}",
            NetworkWarning,
            stacklevel=2,
        )
    result = measure(answers, data.labels, data.classes)
    if not math.isfinite(result.loss):
        raise RunError(
            f"the loss on {counted(len(data), 'image')} is {result.loss}: the training "
            "diverged, or the weights are damaged"
        )
    return result


def measure(log_probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Evaluation:
    """Measure float32 log-probabilities (N, classes) against int64 labels (N).

    The calibration error is the mean of |accuracy - confidence| over 15 equal bins of confidence,
    weighted by the images in each (Guo et al., "On Calibration of Modern Neural Networks", 2017,
    equation 3).
    """
    count, number = log_probabilities.shape
    has_answer = is_answer(log_probabilities)
    samples = torch.bincount(labels, minlength=number).tolist()
    log_probabilities, labels = log_probabilities[has_answer], labels[has_answer]
    predicted = log_probabilities.argmax(dim=1)
    correct = int((predicted == labels).sum())
    confusion = torch.bincount(labels * number + predicted, minlength=number * number)
    confusion = confusion.view(number, number)
    counts = zip(samples, confusion.sum(0).tolist(), confusion.diagonal().tolist(), strict=True)
    scores = [_scores(*each) for each in counts]
    present = [each for each in scores if each.f1 is not None]
    recalls = [each.recall for each in scores if each.recall is not None]
    calibration = calibrate(log_probabilities, labels)
    gaps = (calibration.hits - calibration.confidence).abs()
    return Evaluation(
        samples=count,
        loss=F.nll_loss(log_probabilities.double(), labels).item(),
        accuracy=correct / count,
        balanced_accuracy=sum(recalls) / len(recalls),
        macro=MacroScores(
            precision=sum(each.precision for each in present) / len(present),
            recall=sum(each.recall or 0.0 for each in present) / len(present),
            f1=sum(each.f1 or 0.0 for each in present) / len(present),
        ),
        per_class=dict(zip(classes, scores, strict=True)),
        confusion=confusion.tolist(),
        calibration_error=gaps.sum().item() / max(len(labels), 1),
        correct=correct,
    )


def _scores(samples: int, predicted: int, hits: int) -> ClassScores:
    """Return the scores of a class from its images, those taken for it, and the hits in both."""
    recall = hits / samples if samples else None
    return ClassScores(
        accuracy=recall,
        samples=samples,
        precision=hits / predicted if predicted else 0.0,
        recall=recall,
        f1=2 * hits / (samples + predicted) if samples + predicted else None,
    )


def is_answer(log_probabilities: Tensor) -> Tensor:
    """Return bool (N): which rows of log-probabilities (N, classes) have no NaN."""
    return ~log_probabilities.isnan().any(dim=1)


@dataclass(frozen=True)
class Calibration:
    """Images in each of CALIBRATION_BINS equal bins of confidence from 0 to 1: float64 (bins)."""

    samples: Tensor
    hits: Tensor
    confidence: Tensor  # sum over the bin's images


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
