"""A run from settings to a finished run directory."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from cifar_cnn.data.augment import check_augmentation
from cifar_cnn.data.dataset import REFERENCE, Progress, measure
from cifar_cnn.data.load import load_test, load_train
from cifar_cnn.errors import CheckpointError, RunError, one_line
from cifar_cnn.models.module import parameters_of, weights_of
from cifar_cnn.models.registry import build_checked, check_spec, is_built_in
from cifar_cnn.runtime import (
    configure_cuda,
    has_fast_bf16,
    resolve_precision,
    resolve_threads,
)
from cifar_cnn.settings import Settings
from cifar_cnn.storage.checkpoint import Checkpoint, load_weights
from cifar_cnn.storage.naming import BEST, MODEL
from cifar_cnn.storage.network import digest, read_source
from cifar_cnn.training.distributed import ALONE, Processes
from cifar_cnn.training.events import EpochEnded, Event, Listener, RunEnded, RunStarted
from cifar_cnn.training.history import EpochRow, RunResult, best_row, conclude_run
from cifar_cnn.training.optimizer import describe_new_length
from cifar_cnn.training.run_directory import RunDirectory
from cifar_cnn.training.state import Best, check_images, go_on, read_state, state_of
from cifar_cnn.training.step import describe_weights
from cifar_cnn.training.trainer import Trainer
from cifar_cnn.training.trial import describe_hopeless, show_images, try_saving, try_training


class Run:
    """One run of a network through its epochs, and what is saved of it when.

    Precision `auto` and 0 threads are resolved here. A `checkpoint` of `last.pt`'s kind, of the
    same settings, is resumed. When `should_stop` says so, the run saves and ends early.
    """

    def __init__(
        self,
        settings: Settings,
        device: torch.device,
        *,
        processes: Processes = ALONE,
        listeners: Sequence[Listener] = (),
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.device = device
        self.listeners = listeners
        self.history: list[EpochRow] = []
        self.best: Checkpoint | None = None
        check_augmentation(settings)
        check_spec(settings.model)
        with processes.in_turn():
            train, val = load_train(settings, progress)
            evaluation = load_test(settings, settings.limit_eval, progress) if val is None else val
        evaluation = evaluation.limited(settings.limit_eval)
        self.classes, self.test_sha256 = train.classes, train.test_sha256
        self.notes = list(dict.fromkeys([*train.notes, *evaluation.notes]))
        torch.manual_seed(settings.seed)
        model, output = build_checked(settings, len(self.classes))
        self.source = read_source(settings)
        if checkpoint is not None:
            normalization = checkpoint.normalization
        else:
            own = settings.normalization == "dataset"
            normalization = measure(train.images) if own else REFERENCE
        if device.type == "cuda":
            configure_cuda(deterministic=settings.deterministic)
        if settings.precision == "bf16" and not has_fast_bf16(device):
            self.notes.append(f"this {device.type} has no bf16 arithmetic: it will be slow")
        precision = resolve_precision(settings.precision, device)
        threads = resolve_threads(settings.threads)
        settings = settings.model_copy(update={"precision": precision, "threads": threads})
        self.notes += describe_hopeless(train, output)
        show_images(model, train, normalization)
        self.trainer = Trainer(
            settings,
            model,
            train,
            evaluation,
            device,
            processes=processes,
            normalization=normalization,
            listeners=listeners,
            should_stop=should_stop,
        )
        weights = self.trainer.training_step.class_weights
        if weights is not None:
            self.notes.append(describe_weights(weights, self.classes))
        if not is_built_in(settings.model):
            self.notes += try_training(self.trainer)
        self.settings = self.trainer.settings
        try_saving(self.trainer.model, lambda: self._checkpoint(with_training=True))
        if checkpoint is not None:
            self._resume(checkpoint)

    def fit(self, directory: RunDirectory) -> RunResult:
        """Train what is left of the run, saving after each epoch."""
        self._start(directory)
        for row in self.trainer.epochs():
            self.history.append(row)
            if row.eval_split == "val" and row is best_row(self.history):
                self.best = _copy(self._checkpoint())
                directory.save(BEST, self.best)
            self._save_last(directory)
            directory.write_history(self.history)
            self._tell(EpochEnded(directory.path, tuple(self.history), self._new_notes()))
        finished = len(self.history) == self.settings.epochs
        model_file = None
        if finished:
            model_file = directory.save(MODEL, self.best or self._checkpoint())
            self.trainer.free()  # memory for who is told next
        else:
            self._save_last(directory)
        self._tell(RunEnded(directory.path, finished, tuple(self.history)))
        if finished:
            directory.write_history(self.history, finished=True)
        return conclude_run(directory.path, model_file, self.history, self.trainer.step)

    def _resume(self, checkpoint: Checkpoint) -> None:
        state = read_state(checkpoint, "the checkpoint")
        check_images(self.trainer, self.classes, self.test_sha256, checkpoint, state)
        self.history = list(state.history)
        load_weights(self.trainer.model, checkpoint.state_dict, Path("the checkpoint"))
        try:
            go_on(self.trainer, state)
        except Exception as error:  # a file may hold anything
            raise CheckpointError(
                f"the training state of the checkpoint does not fit: {one_line(error)}"
            ) from error
        if state.best:
            self.best = checkpoint.model_copy(update={**dict(state.best), "training": None})
        if checkpoint.settings.epochs != self.settings.epochs:
            self.notes.append(
                describe_new_length(
                    checkpoint.settings,
                    self.settings,
                    self.trainer.step,
                    self.trainer.batches.per_epoch,
                )
            )

    def _start(self, directory: RunDirectory) -> None:
        directory.write_start(self.settings, self.source)
        directory.write_history(self.history)
        if self.best:
            directory.save(BEST, self.best)
        self._tell(
            RunStarted(
                directory.path,
                self.settings,
                str(self.device),
                self.trainer.batches.per_epoch,
                sum(each.numel() for each in parameters_of(self.trainer.model)),
                tuple(self.history),
                tuple(self.notes),
                self.trainer.step,
                self.trainer.evaluation.name,
            )
        )

    def _save_last(self, directory: RunDirectory) -> None:
        weights = parameters_of(self.trainer.model)
        if not all(bool(torch.isfinite(each).all()) for each in weights):
            raise RunError(
                f"the weights are not finite after epoch {self.trainer.epoch}, step "
                f"{self.trainer.step}, learning rate {self.settings.lr:g} at most: nothing was "
                "saved over the last good checkpoint; try a lower --lr"
            )
        directory.save_last(self._checkpoint(with_training=True))

    def _checkpoint(self, *, with_training: bool = False) -> Checkpoint:
        training = None
        if with_training:
            was = self.best
            best = Best.model_validate(was, from_attributes=True) if was else None
            training = state_of(self.trainer, self.history, best).pack()
        mean, std = self.trainer.batches.normalization
        return Checkpoint(
            model=self.settings.model,
            classes=self.classes,
            mean=mean,
            std=std,
            settings=self.settings,
            metrics=self.history[-1].metrics() if self.history else {},
            state_dict=weights_of(self.trainer.model),
            source_sha256=digest(self.source) if self.source is not None else None,
            test_sha256=self.test_sha256,
            training=training,
        )

    def _new_notes(self) -> tuple[str, ...]:
        """Return what the user has not been told yet."""
        new = [note for note in self.trainer.notes if note not in self.notes]
        self.notes += new
        return tuple(new)

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)


def _copy(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with weights of its own, which further training leaves alone."""
    weights = {name: value.clone() for name, value in checkpoint.state_dict.items()}
    return checkpoint.model_copy(update={"state_dict": weights})
