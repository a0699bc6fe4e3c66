"""What a run reports: its epochs, events for listeners, and its result. Needs no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, computed_field, model_validator

from cifar_cnn.results import NotInJson, Result, Share
from cifar_cnn.settings import Settings
from cifar_cnn.storage.naming import MODEL

T = TypeVar("T")
SPLIT_NAMES = {"test": "test", "val": "validation"}
LOG_END = f"Model saved in .pt format to {MODEL}\n"
"""The last line of the log of a finished run."""
Flat = Annotated[T, Field(exclude=True)]
"""A field of a row that JSON has elsewhere or not at all."""


class TrainFigures(Result):
    """Running means over an epoch's augmented images."""

    accuracy: Share
    loss: float


class SplitFigures(Result):
    """Accuracy and loss on a split after an epoch."""

    split: str
    accuracy: Share
    loss: float


class EpochRow(Result):
    """One epoch: a row of metrics.csv, and a dictionary of its fields in `last.pt`.

    Losses are in nats, accuracies fractions, `seconds` of training only. `epoch` counts from 0, as
    in the reference's log, `step` from the run's start; `lr` is that of the epoch's last step. The
    last four fields are for the log: 0 in a row that was read from metrics.csv.
    """

    model_config = ConfigDict(extra="ignore")

    epoch: int
    step: int
    lr: float
    train_loss: Flat[float]
    train_accuracy: Flat[float]
    eval_split: Flat[Annotated[str, Field(pattern="^(test|val)$")]]
    eval_loss: Flat[float]
    eval_accuracy: Flat[float]
    seconds: float
    images_per_second: float
    last_loss: Flat[float] = 0.0
    batches: Flat[int] = 0
    eval_correct: Flat[int] = 0
    eval_samples: Flat[int] = 0

    @model_validator(mode="before")
    @classmethod
    def _add_accuracy(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Add what checkpoints of versions 0.1.0 and 0.2.0 leave out."""
        if "eval_accuracy" in values or not values.get("eval_samples"):
            return values
        return values | {"eval_accuracy": values["eval_correct"] / values["eval_samples"]}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def train(self) -> TrainFigures:
        """The figures of training."""
        return TrainFigures(accuracy=self.train_accuracy, loss=self.train_loss)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def eval(self) -> SplitFigures:
        """The figures of the evaluation split."""
        return SplitFigures(split=self.eval_split, accuracy=self.eval_accuracy, loss=self.eval_loss)

    def metrics(self) -> dict[str, int | float | str]:
        """Return the columns of metrics.csv by name."""
        return {name: getattr(self, name) for name in COLUMNS}


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
    lines = [COLUMNS, *(row.metrics().values() for row in rows)]
    return "".join(",".join(map(str, line)) + "\n" for line in lines)


def to_log(rows: Sequence[EpochRow], *, finished: bool) -> str:
    """Return training.log in the reference's format."""
    epochs = [
        f"EPOCH:{row.epoch} Loss={row.last_loss} Batch_id={row.batches - 1} "
        f"Accuracy={100 * row.train_accuracy:.2f} LR={row.lr}\n"
        f"{SPLIT_NAMES[row.eval_split].capitalize()} set: Average loss: {row.eval_loss:.4f}, "
        f"Accuracy: {row.eval_correct}/{row.eval_samples} ({100 * row.eval_accuracy:.2f}%)\n"
        for row in rows
    ]
    return "\n".join([*epochs, LOG_END] if finished else epochs)


@dataclass(frozen=True)
class RunStarted:
    """Images and network are ready; training begins, or goes on after `step` steps."""

    directory: Path
    settings: Settings
    device: str
    steps_per_epoch: int
    parameters: int
    history: tuple[EpochRow, ...]
    notes: tuple[str, ...]
    step: int = 0
    eval_split: str = "test"


@dataclass(frozen=True)
class StepEnded:
    """A step is done (on CUDA: several are); loss and accuracy are the epoch's running means.

    `batch` is its index within the epoch.
    """

    epoch: int
    batch: int
    loss: float
    accuracy: float
    lr: float
    images_per_second: float


@dataclass(frozen=True)
class EpochEnded:
    """An epoch is trained, evaluated and saved in `last.pt`; `history` ends with it."""

    directory: Path
    history: tuple[EpochRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunEnded:
    """The run is finished, or stopped and saved; `history` has its epochs."""

    directory: Path
    finished: bool
    history: tuple[EpochRow, ...]


Event = RunStarted | StepEnded | EpochEnded | RunEnded
Listener = Callable[[Event], None]
