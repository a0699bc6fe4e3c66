"""The epochs of a run: as rows of metrics.csv, as the reference's log, and as a run's result."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from cifar_cnn.results import NotInJson, Result, Share

SPLIT_NAMES = {"test": "test", "val": "validation"}


class TrainFigures(Result):
    """Running means over an epoch's augmented images."""

    accuracy: Share
    loss: float


class SplitFigures(Result):
    """Accuracy and loss on a split after an epoch."""

    split: str
    accuracy: Share
    loss: float


class Epoch(Result):
    """An epoch as JSON; `seconds` are of training only."""

    epoch: int
    step: int
    lr: float
    train: TrainFigures
    eval: SplitFigures
    seconds: float
    images_per_second: float


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
    eval_split: Annotated[str, Field(pattern="^(test|val)$")]
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
        correct, samples = values.get("eval_correct"), values.get("eval_samples")
        if type(correct) is not int or type(samples) is not int or not 0 <= correct <= samples > 0:
            return values
        return {**values, "eval_accuracy": correct / samples}

    def metrics(self) -> dict[str, int | float | str]:
        """Return the columns of metrics.csv by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    @property
    def eval(self) -> SplitFigures:
        """The figures of the evaluation split."""
        return SplitFigures(split=self.eval_split, accuracy=self.eval_accuracy, loss=self.eval_loss)

    @model_serializer(when_used="json")
    def _nested(self) -> Epoch:
        return Epoch(
            epoch=self.epoch,
            step=self.step,
            lr=self.lr,
            train=TrainFigures(accuracy=self.train_accuracy, loss=self.train_loss),
            eval=self.eval,
            seconds=self.seconds,
            images_per_second=self.images_per_second,
        )


COLUMNS = tuple(EpochRow.model_fields)[:10]
"""Columns of metrics.csv."""


def best_row(rows: Sequence[EpochRow]) -> EpochRow:
    """Return the epoch whose network `model.pt` holds: best by validation, without one the last."""
    if rows[-1].eval_split == "test":
        return rows[-1]
    return max(rows, key=lambda row: (row.eval_accuracy, -row.eval_loss))


class RunResult(Result):
    """The result of a run; without a `model_file` it was stopped early.

    `eval` is None before an epoch has ended; the times are of the training of whole epochs.
    """

    run: Path
    model_file: Path | None
    epochs: int
    steps: int
    eval: SplitFigures | None
    seconds: float
    images_per_second: float
    history: NotInJson[tuple[EpochRow, ...]]


def conclude_run(
    run: Path, model_file: Path | None, history: Sequence[EpochRow], steps: int
) -> RunResult:
    """Return the result of a run from its epochs."""
    seconds = sum(row.seconds for row in history)
    images = sum(row.seconds * row.images_per_second for row in history)
    return RunResult(
        run=run,
        model_file=model_file,
        epochs=len(history),
        steps=steps,
        eval=best_row(history).eval if history else None,
        seconds=seconds,
        images_per_second=images / seconds if seconds else 0.0,
        history=tuple(history),
    )


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
