import csv
import io

import pytest

from cifar_cnn.training.history import EpochRow, best_row, to_csv, to_log


def row(epoch=0, **changes):
    values = {
        "epoch": epoch,
        "step": (epoch + 1) * 782,
        "lr": 0.01,
        "train_loss": 1.65,
        "train_accuracy": 0.3912,
        "last_loss": 1.6572844982147217,
        "batches": 782,
        "eval_split": "test",
        "eval_loss": 1.38221,
        "eval_correct": 4965,
        "eval_samples": 10000,
        "seconds": 50.0,
        "images_per_second": 1000.0,
    }
    return EpochRow(**values | changes)


REFERENCE_LOG = """\
EPOCH:0 Loss=1.6572844982147217 Batch_id=781 Accuracy=39.12 LR=0.01
Test set: Average loss: 1.3822, Accuracy: 4965/10000 (49.65%)

EPOCH:1 Loss=1.0867810249328613 Batch_id=781 Accuracy=50.20 LR=0.01
Test set: Average loss: 1.1864, Accuracy: 5824/10000 (58.24%)

Model saved in .pt format to model.pt
"""


def test_the_log_is_the_references_line_for_line():
    second = row(
        1,
        last_loss=1.0867810249328613,
        train_accuracy=0.502,
        eval_loss=1.1864,
        eval_correct=5824,
    )
    assert to_log([row(), second], finished=True) == REFERENCE_LOG
    unfinished = REFERENCE_LOG[: REFERENCE_LOG.index("\nModel")]
    assert to_log([row(), second], finished=False) == unfinished


def test_a_validation_split_is_called_so_in_the_log():
    assert "\nValidation set: Average" in to_log([row(eval_split="val")], finished=False)


def test_the_table_has_the_contracts_columns_and_fractions():
    (line,) = csv.DictReader(io.StringIO(to_csv([row()])))
    assert list(line) == [
        "epoch",
        "step",
        "lr",
        "train_loss",
        "train_accuracy",
        "eval_split",
        "eval_loss",
        "eval_accuracy",
        "seconds",
        "images_per_second",
    ]
    assert float(line["eval_accuracy"]) == 0.4965
    assert float(line["train_accuracy"]) == 0.3912


@pytest.mark.parametrize(("split", "best"), [("test", 3), ("val", 1)])
def test_the_test_split_never_chooses(split, best):
    rows = [row(i, eval_split=split, eval_correct=c) for i, c in enumerate((10, 90, 90, 50))]
    assert best_row(rows).epoch == best


def test_equal_accuracies_are_told_apart_by_loss():
    rows = [row(i, eval_split="val", eval_loss=loss) for i, loss in enumerate((2.0, 1.0, 1.5))]
    assert best_row(rows).epoch == 1
