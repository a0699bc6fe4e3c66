"""A run from settings to a finished run directory: how it starts, and what it saves when."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from cifar_cnn.data.augment import check_augmentation
from cifar_cnn.data.dataset import REFERENCE, Progress, measure
from cifar_cnn.data.load import load_test, load_train
from cifar_cnn.errors import CheckpointError, RunError, counted, one_line
from cifar_cnn.models.module import parameters_of, weights_of
from cifar_cnn.models.registry import build_checked, check_spec
from cifar_cnn.runtime import configure_cuda, has_fast_bf16, resolve_precision, resolve_threads
from cifar_cnn.settings import Settings
from cifar_cnn.storage.checkpoint import Checkpoint, load_weights, pack
from cifar_cnn.storage.files import SOURCE
from cifar_cnn.storage.naming import BEST, MODEL, SETTINGS
from cifar_cnn.storage.network import digest, read_source
from cifar_cnn.training.distributed import Processes
from cifar_cnn.training.history import (
    EpochEnded,
    EpochRow,
    Event,
    Listener,
    RunEnded,
    RunResult,
    RunStarted,
    best_row,
    conclude_run,
)
from cifar_cnn.training.optimizer import describe_new_length
from cifar_cnn.training.plan import OF_BEST, TrainingState, read_state
from cifar_cnn.training.run_directory import RunDirectory
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
        processes: Processes,
        *,
        listeners: Sequence[Listener] = (),
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
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
        torch.manual_seed(settings.seed)
        model, output = build_checked(settings, len(self.classes))
        self.source = read_source(settings)
        normalization = REFERENCE
        if checkpoint is not None:
            normalization = checkpoint.normalization
        elif settings.normalization == "dataset":
            normalization = measure(train.images)
        notes = [*dict.fromkeys([*train.notes, *evaluation.notes])]
        device = processes.device
        if device.type == "cuda":
            configure_cuda(deterministic=settings.deterministic)
        if settings.precision == "bf16" and not has_fast_bf16(device):
            notes.append(f"this {device.type} has no bf16 arithmetic: it will be slow")
        precision = resolve_precision(settings.precision, device)
        threads = resolve_threads(settings.threads)
        notes += describe_hopeless(train, output)
        show_images(model, train, normalization)
        self.trainer = Trainer(
            settings.model_copy(update={"precision": precision, "threads": threads}),
            model,
            train,
            evaluation,
            processes,
            normalization=normalization,
            tell=self._tell,
            should_stop=should_stop,
        )
        self.notes = self.trainer.notes
        self.notes[:0] = notes
        if not self.trainer.is_built_in:
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
                directory.write(BEST, pack(self.best))
            self._save_last(directory)
            directory.write_history(self.history)
            self._tell(EpochEnded(directory.path, tuple(self.history), self._take_notes()))
        model_file = None
        is_finished = len(self.history) == self.settings.epochs
        if is_finished:
            model_file = directory.write(MODEL, pack(self.best or self._checkpoint()))
            self.trainer.update.free()  # memory for the listeners
        else:
            self._save_last(directory)
        self._tell(RunEnded(directory.path, is_finished, tuple(self.history)))
        if is_finished:
            directory.write_history(self.history, finished=True)
        return conclude_run(directory.path, model_file, self.history, self.trainer.step)

    def _resume(self, checkpoint: Checkpoint) -> None:
        state = read_state(checkpoint, "the checkpoint")
        self._check_images(checkpoint, state)
        self.history = list(state.history)
        self.best = state.best
        load_weights(self.trainer.model, checkpoint.state_dict, Path("the checkpoint"))
        try:
            self.trainer.load_state(dict(state))
        except Exception as error:  # a file may hold anything
            raise CheckpointError(
                f"the training state of the checkpoint does not fit: {one_line(error)}"
            ) from error
        if checkpoint.settings.epochs != self.settings.epochs:
            per_epoch = self.trainer.batches.per_epoch
            self.notes.append(
                describe_new_length(
                    checkpoint.settings, self.settings, self.trainer.step, per_epoch
                )
            )

    def _check_images(self, checkpoint: Checkpoint, state: TrainingState) -> None:
        """Raise an error if a resumed run's images are not those of its checkpoint."""
        count, split = self.trainer.batches.count, self.trainer.evaluation.name
        if checkpoint.classes != self.classes or state.images != count:
            raise CheckpointError(
                "the training images are not those of the checkpoint: "
                f"{state.images} of {counted(len(checkpoint.classes), 'class')} there, "
                f"{count} of {len(self.classes)} here"
            )
        if self.test_sha256 != checkpoint.test_sha256:
            raise CheckpointError(
                "the files that test_size makes the test images are not those of the checkpoint: "
                "files were added, removed or renamed since"
            )
        if state.history and state.history[-1].eval_split != split:
            raise CheckpointError(
                f"the run is evaluated on {state.history[-1].eval_split} images, and the data set "
                f"has {split} images for that now"
            )

    def _start(self, directory: RunDirectory) -> None:
        files = {SETTINGS: self.settings.to_toml().encode()}
        if self.source is not None:
            files[SOURCE] = self.source
        directory.begin(self.history, files)
        if self.best:
            directory.write(BEST, pack(self.best))
        trainer = self.trainer
        self._tell(
            RunStarted(
                directory.path,
                self.settings,
                str(trainer.device),
                trainer.batches.per_epoch,
                sum(each.numel() for each in parameters_of(trainer.model)),
                tuple(self.history),
                (*self._take_notes(), *directory.notes),
                trainer.step,
                trainer.evaluation.name,
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
        directory.write_last(pack(self._checkpoint(with_training=True)))

    def _checkpoint(self, *, with_training: bool = False) -> Checkpoint:
        training = None
        if with_training:
            training = self.trainer.state()
            training["history"] = [dict(row) for row in self.history]
            if self.best:
                training["best"] = self.best.model_dump(include=OF_BEST)
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

    def _take_notes(self) -> tuple[str, ...]:
        """Return what the user has not been told yet."""
        notes = tuple(self.notes)
        self.notes.clear()
        return notes

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)


def _copy(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with weights of its own, which further training leaves alone."""
    weights = {name: value.clone() for name, value in checkpoint.state_dict.items()}
    return checkpoint.model_copy(update={"state_dict": weights})
