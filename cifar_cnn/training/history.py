"""The epochs of a run: as rows of metrics.csv, as the reference's log, and as a run's result."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from cifar_cnn.documents import runs as documents

SPLIT_NAMES = {"test": "test", "val": "validation"}


class EpochRow(BaseModel):
    """One epoch. Losses in nats and accuracies as fractions; `seconds` of training only.

    Args:
        epoch: counted from 0, as in the reference's log.
        step: steps done since the run began.
        lr: learning rate of the epoch's last step.
        train_loss, train_accuracy: running means over the epoch's augmented images.
        last_loss, batches: of the epoch's last batch, and how many there were.
        eval_correct, eval_samples: images of the evaluation split that are right, and all.

    The last four are for the log; a row that was read from metrics.csv has 0 there.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_accuracy: float
    eval_split: str
    eval_loss: float
    eval_accuracy: float
    seconds: float
    images_per_second: float
    last_loss: float = 0.0
    batches: int = 0
    eval_correct: int = 0
    eval_samples: int = 0

    @model_validator(mode="before")
    @classmethod
    def _with_accuracy(cls, values: Any) -> Any:
        """Add what checkpoints of versions 0.1.0 and 0.2.0 leave out."""
        if not isinstance(values, dict) or "eval_accuracy" in values:
            return values
        try:
            accuracy = values["eval_correct"] / values["eval_samples"]
        except (KeyError, TypeError, ZeroDivisionError):
            return values
        return {**values, "eval_accuracy": accuracy}

    def metrics(self) -> dict[str, int | float | str]:
        """Return the columns of metrics.csv by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    def as_dict(self) -> documents.Epoch:
        """Return the epoch's entry in `runs show --json`."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "lr": self.lr,
            "train": {"accuracy": self.train_accuracy, "loss": self.train_loss},
            "eval": split_figures(self),
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
        }


COLUMNS = tuple(EpochRow.model_fields)[:10]
"""Columns of metrics.csv."""


def best_row(rows: Sequence[EpochRow]) -> EpochRow:
    """Return the epoch whose network `model.pt` holds: best by validation, without one the last."""
    if rows[-1].eval_split == "test":
        return rows[-1]
    return max(rows, key=lambda row: (row.eval_accuracy, -row.eval_loss))


def split_figures(row: EpochRow) -> documents.SplitFigures:
    """Return what the documents say of an epoch's evaluation."""
    return {"split": row.eval_split, "accuracy": row.eval_accuracy, "loss": row.eval_loss}


@dataclass(frozen=True)
class RunResult:
    """The result of a run; without a `model_file` it was stopped early."""

    run: Path
    model_file: Path | None
    history: tuple[EpochRow, ...]
    steps: int

    def as_dict(self) -> documents.TrainResult:
        """Return the document of `train --json`; the times are of the training of whole epochs.

        `model_file` is null where the run was stopped, `eval` where no epoch was finished.
        """
        seconds = sum(row.seconds for row in self.history)
        images = sum(row.seconds * row.images_per_second for row in self.history)
        return {
            "run": str(self.run),
            "model_file": str(self.model_file) if self.model_file else None,
            "epochs": len(self.history),
            "steps": self.steps,
            "eval": split_figures(best_row(self.history)) if self.history else None,
            "seconds": seconds,
            "images_per_second": images / seconds if seconds else 0.0,
        }


def to_csv(rows: Sequence[EpochRow]) -> str:
    """Return metrics.csv: a heading, then one line an epoch, numbers in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.metrics() for row in rows)
    return text.getvalue()


def to_log(rows: Sequence[EpochRow], saved_as: str | None) -> str:
    """Return training.log in the reference's format; `saved_as` is the model file, once it is."""
    epochs = [
        f"EPOCH:{row.epoch} Loss={row.last_loss} Batch_id={row.batches - 1} "
        f"Accuracy={100 * row.train_accuracy:.2f} LR={row.lr}\n"
        f"{SPLIT_NAMES[row.eval_split].capitalize()} set: Average loss: {row.eval_loss:.4f}, "
        f"Accuracy: {row.eval_correct}/{row.eval_samples} ({100 * row.eval_accuracy:.2f}%)\n"
        for row in rows
    ]
    if saved_as:
        epochs.append(saved_line(saved_as))
    return "\n".join(epochs)


def saved_line(name: str) -> str:
    """Return the last line of the log of a finished run."""
    return f"Model saved in .pt format to {name}\n"
