import warnings

import pytest
import torch
import torch.nn.functional as F

from cifar_cnn.inference.metrics import calibrate, measure


@pytest.fixture
def predictions():
    source = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(500, 7, generator=source)
    labels = torch.randint(0, 7, (500,), generator=source)
    return F.log_softmax(logits, dim=1), labels


def test_loss_and_accuracy_on_a_case_worked_by_hand():
    log_probabilities = torch.tensor([[0.5, 0.5 - 1e-9], [0.1, 0.9], [0.8, 0.2]]).log()
    result = measure(log_probabilities, torch.tensor([0, 1, 1]), "ab")
    assert (result.correct, result.samples, result.accuracy) == (2, 3, 2 / 3)
    expected = -(torch.tensor([0.5, 0.9, 0.2], dtype=torch.float64).log().mean())
    assert result.loss == pytest.approx(float(expected), rel=1e-6)
    assert result.confusion == [[1, 0], [1, 1]]
    # one image in each of three bins: |1 - 0.5|, |1 - 0.9| and |0 - 0.8|, each a third
    assert result.calibration_error == pytest.approx((0.5 + 0.1 + 0.8) / 3, rel=1e-6)


def test_calibration_adds_up_to_the_evaluation():
    torch.manual_seed(0)
    output = torch.randn(200, 5).log_softmax(dim=1)
    labels = torch.randint(0, 5, (200,))
    calibration, result = calibrate(output, labels), measure(output, labels, "abcde")
    assert calibration.samples.sum() == 200
    assert calibration.hits.sum() == result.correct
    gap = (calibration.hits - calibration.confidence).abs().sum() / 200
    assert gap.item() == pytest.approx(result.calibration_error)


@pytest.mark.parametrize("kept", [7, 5])
def test_figures_agree_with_torchmetrics(predictions, kept):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchmetrics' own imports
        from torchmetrics.functional.classification import (
            multiclass_accuracy,
            multiclass_calibration_error,
            multiclass_confusion_matrix,
            multiclass_f1_score,
            multiclass_precision,
            multiclass_recall,
        )
    output, labels = predictions
    output, labels = output[labels < kept], labels[labels < kept]
    result = measure(output, labels, "abcdefg")
    expected = multiclass_calibration_error(output.exp(), labels, 7, n_bins=15, norm="l1")
    assert result.calibration_error == pytest.approx(float(expected), abs=1e-6)
    assert result.confusion == multiclass_confusion_matrix(output, labels, 7).tolist()
    accuracy = multiclass_accuracy(output, labels, 7, average="micro")
    assert result.accuracy == pytest.approx(float(accuracy))
    functions = {
        "precision": multiclass_precision,
        "recall": multiclass_recall,
        "f1": multiclass_f1_score,
    }
    for name, function in functions.items():
        expected = function(output, labels, 7, average="none").tolist()
        found = [getattr(each, name) or 0.0 for each in result.per_class.values()]
        assert found == pytest.approx(expected, abs=1e-6)
        macro = function(output, labels, 7, average="macro").item()
        assert getattr(result.macro, name) == pytest.approx(macro, abs=1e-6)
    present = multiclass_accuracy(output, labels, 7, average="none")[:kept].mean().item()
    assert result.balanced_accuracy == pytest.approx(present, abs=1e-6)
