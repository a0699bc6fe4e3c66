"""The training state in `last.pt`: everything besides the network that resuming needs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError
from torch import Tensor

from cifar_cnn.errors import CheckpointError, counted
from cifar_cnn.storage.checkpoint import Checkpoint
from cifar_cnn.training.history import EpochRow
from cifar_cnn.training.optimizer import load_optimizer
from cifar_cnn.training.step import Totals
from cifar_cnn.training.trainer import Trainer

Count = Annotated[int, Strict(), Field(ge=0)]


class Best(BaseModel):
    """The network that a validation split has chosen so far; its code may have changed since."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    metrics: dict[str, int | float | str]
    state_dict: dict[str, Tensor]
    source_sha256: str | None = None


class TrainingState(BaseModel):
    """The training part of a checkpoint; its fields are the keys on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    epoch: Count  # that goes on, from 0
    batch: Count  # index within the epoch of the next batch
    seconds: float  # that the epoch has trained for
    totals: Totals
    optimizer: dict[str, Any]
    model: None = None  # a key of versions 0.1.0 and 0.2.0
    images: int
    history: tuple[EpochRow, ...]
    best: Best | None = None  # if a validation split has chosen a network

    def pack(self) -> dict[str, Any]:
        """Return the entry `training` of the checkpoint."""
        packed = dict(self)
        packed["totals"] = asdict(self.totals)
        packed["history"] = [row.model_dump() for row in self.history]
        best = packed.pop("best")
        del packed["model"]
        return packed | ({"best": dict(best)} if best else {})


def read_state(checkpoint: Checkpoint, source: object) -> TrainingState:
    """Return the training part of a checkpoint that has one; `source` is its name in messages."""
    try:
        state = TrainingState.model_validate(checkpoint.training)
    except ValidationError:
        message = f"{source} cannot be resumed: its progress is unreadable"
        raise CheckpointError(message) from None  # to show a foreign value may take forever
    if len(state.history) != state.epoch:
        raise CheckpointError(f"{source} cannot be resumed: its progress contradicts itself")
    return state


def state_of(trainer: Trainer, history: Sequence[EpochRow], best: Best | None) -> TrainingState:
    """Return what a trainer needs to go on from here, besides the model's weights."""
    return TrainingState(
        epoch=trainer.epoch,
        batch=trainer.index,
        seconds=trainer.seconds,
        totals=trainer.training_step.totals.read(),
        optimizer=trainer.optimizer.state_dict(),
        images=trainer.batches.count,
        history=tuple(history),
        best=best,
    )


def check_images(
    trainer: Trainer,
    classes: tuple[str, ...],
    test_sha256: str | None,
    checkpoint: Checkpoint,
    state: TrainingState,
) -> None:
    """Raise an error if a resumed run's images are not those of its checkpoint."""
    if checkpoint.classes != classes or state.images != trainer.batches.count:
        raise CheckpointError(
            "the training images are not those of the checkpoint: "
            f"{state.images} of {counted(len(checkpoint.classes), 'class')} there, "
            f"{trainer.batches.count} of {len(classes)} here"
        )
    if test_sha256 != checkpoint.test_sha256:
        raise CheckpointError(
            "the files that test_size makes the test images are not those of the checkpoint: files "
            "were added, removed or renamed since"
        )
    if state.history and state.history[-1].eval_split != trainer.evaluation.name:
        raise CheckpointError(
            f"the run is evaluated on {state.history[-1].eval_split} images, and the data set "
            f"has {trainer.evaluation.name} images for that now"
        )


def go_on(trainer: Trainer, state: TrainingState) -> None:
    """Restore a trainer from a state; the caller loads the model's weights."""
    per_epoch = trainer.batches.per_epoch
    if state.batch > per_epoch:
        raise ValueError(f"steps done: {state.batch} of {per_epoch}")
    trainer.epoch, trainer.index, trainer.seconds = state.epoch, state.batch, state.seconds
    trainer.training_step.totals.set(state.totals)
    load_optimizer(trainer.optimizer, state.optimizer)
