"""Decide what a run starts with: fresh weights, or a checkpoint and its training state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict

from cifar_cnn.errors import CheckpointError, RequestError, SettingsError, counted
from cifar_cnn.models.registry import (
    check_settings,
    find_definition,
    is_built_in,
    made_for,
    source_file,
)
from cifar_cnn.runtime import resolve_device, resolve_precision
from cifar_cnn.settings import Settings, complete_settings, parse_arguments, validate
from cifar_cnn.storage.checkpoint import Checkpoint, check_code, read_checkpoint
from cifar_cnn.storage.naming import LAST, MODEL, PREVIOUS, RUNS, find_run
from cifar_cnn.storage.network import changed_source, digest, read_source
from cifar_cnn.training.history import EpochRow, RunResult, conclude_run
from cifar_cnn.training.run_files import Replace, check_directory, is_finished

MAY_CHANGE = ("epochs", "device", "threads", "data_dir", "recipe")
"""Settings that a resumed run may change: how long, where, and names that decide nothing."""

OF_BEST = {"metrics", "state_dict", "source_sha256"}
"""Fields of `best.pt` that `last.pt` keeps, too; both share all others.

The network's code may change between them.
"""

Count = Annotated[int, Strict(), Field(ge=0)]


class TrainingState(BaseModel):
    """What `last.pt` adds to a network: all that a run needs to go on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: Count  # that goes on, from 0
    batch: Count  # index within the epoch of the next batch
    seconds: float  # that the epoch has trained for
    totals: dict[str, float]
    optimizer: dict[str, Any]
    model: None = None  # a key of versions 0.1.0 and 0.2.0
    images: int  # to train on
    history: tuple[EpochRow, ...]  # of whole epochs
    best: Checkpoint | None = None  # what a validation split has chosen


def read_state(checkpoint: Checkpoint, source: object) -> TrainingState:
    """Return the training part of a checkpoint that has one; `source` is its name in messages."""
    training = dict(checkpoint.training or {})
    try:
        if best := training.get("best"):
            own = {name: best.get(name) for name in OF_BEST}
            training["best"] = dict(checkpoint) | {"training": None} | own
        state = TrainingState.model_validate(training)
    except Exception:  # noqa: BLE001 - a file may hold anything, and to show it may take forever
        message = f"{source} cannot be resumed: its progress is unreadable"
        raise CheckpointError(message) from None
    if len(state.history) != state.epoch:
        raise CheckpointError(f"{source} cannot be resumed: its progress contradicts itself")
    return state


@dataclass(frozen=True)
class Plan:
    """What a run starts with, and where; `notes` tell the user about the choice.

    The other fields are arguments of `cifar_cnn.train`.
    """

    settings: Settings
    directory: Path
    checkpoint: Checkpoint | None = None
    replace: Replace = False
    notes: tuple[str, ...] = ()
    numbered: bool = False

    @property
    def finished(self) -> RunResult | None:
        """The result of a run that is already finished, or None if epochs are left."""
        if self.checkpoint is None:
            return None
        rows = read_state(self.checkpoint, LAST).history
        if len(rows) != self.settings.epochs or not is_finished(self.directory, rows):
            return None
        return conclude_run(self.directory, self.directory / MODEL, rows, rows[-1].step)


def plan_run(
    given: Mapping[str, Any],
    *,
    output_dir: Path = RUNS,
    name: str | None = None,
    resume: Path | str | None = None,
    exist_ok: bool = False,
) -> Plan:
    """Decide what a run starts with, and where; write nothing.

    Args:
        given: settings by name that replace the recipe's, or the checkpoint's.
        output_dir: parent of new run directories, and of runs that are called by name.
        name: of the run directory; the default is date, time and recipe, or the resumed run's.
        resume: a run to go on from, by name or path, or a checkpoint. `auto` is this run's own
            directory: its last.pt, its previous.pt if that is damaged, a fresh start if it has
            neither. None starts afresh.
        exist_ok: start again if the run exists.

    Raises:
        SettingsError: a setting is unknown, invalid, or contradicts the checkpoint's.
        RequestError: `auto` without a name, or a name that is a path.
        CheckpointError: the checkpoint is missing, damaged, or no training can go on from it.
        RunError: the run exists, and neither `exist_ok` nor `resume` is set.
    """
    if name is not None and (Path(name).name != name or name in {"", ".."}):
        raise RequestError(f"--name {name!r} is no plain name: --output-dir says in which folder")
    directory = output_dir / name if name else None
    if resume == "auto":
        if directory is None:
            raise RequestError(
                "--resume auto needs --name: without one, each start is a run of its own"
            )
        if any((directory / file).exists() for file in (LAST, PREVIOUS)):
            return _resume(given, directory, *_read_last_good(directory))
    elif resume is not None:
        path = find_run(resume, output_dir)
        path = path / LAST if path.is_dir() else path
        return _resume(given, directory, path, _read(path))
    settings = complete_settings(given)
    check_settings(settings)
    notes: tuple[str, ...] = ()
    model = made_for(settings.recipe)
    if "model" not in given and model not in {None, settings.model}:
        recipe = f"recipe {settings.recipe} is for --model {model}"
        notes = (f"{recipe}; {settings.model} is trained with it",)
    if directory is None:
        directory = output_dir / f"{datetime.now():%Y%m%d-%H%M%S}-{settings.recipe}"
        return Plan(settings, directory, notes=notes, numbered=True)
    replace: Replace = exist_ok or ("unsaved" if resume == "auto" else False)
    check_directory(directory, replace=replace)
    return Plan(settings, directory, replace=replace, notes=notes)


def _read(path: Path) -> Checkpoint:
    checkpoint = read_checkpoint(path, to_train=True)
    if not isinstance(checkpoint, Checkpoint) or checkpoint.training is None:
        raise CheckpointError(f"{path} cannot be resumed: it holds no training state; use {LAST}")
    read_state(checkpoint, path)
    return checkpoint


def _read_last_good(directory: Path) -> tuple[Path, Checkpoint, list[str]]:
    """Return last.pt, or, with a note, previous.pt where last.pt is missing or damaged."""
    last, previous = directory / LAST, directory / PREVIOUS
    try:
        return last, _read(last), []
    except CheckpointError as error:
        if not previous.exists():
            raise
        try:
            checkpoint = _read(previous)
        except CheckpointError as second:
            raise CheckpointError(f"{error}; {second}") from second
        epochs = counted(read_state(checkpoint, previous).epoch, "epoch")
        return previous, checkpoint, [f"{error}; going on from {PREVIOUS}, {epochs} done"]


def _resume(
    given: Mapping[str, Any],
    directory: Path | None,
    path: Path,
    checkpoint: Checkpoint,
    notes: Sequence[str] = (),
) -> Plan:
    """Return the plan to go on from the checkpoint at `path`, there or in another directory."""
    arguments = check_code(checkpoint, path, given)
    settings = _settings_to_resume(given, checkpoint)
    _check_same(path, checkpoint, settings)
    is_elsewhere = directory is not None and directory.resolve() != path.parent.resolve()
    changed = changed_source(path, checkpoint, settings)
    if changed and not is_elsewhere:
        changed += "; going on replaces the copy by the new code's"
    directory = directory or path.parent
    check_directory(directory, replace=not is_elsewhere)
    more = filter(None, (arguments, changed))
    return Plan(settings, directory, checkpoint, notes=(*notes, *more))


def _settings_to_resume(given: Mapping[str, Any], checkpoint: Checkpoint) -> Settings:
    stored = checkpoint.settings
    settings = validate({**stored.model_dump(), "device": "auto", **given})
    if settings.precision != "auto":  # from `given`: a checkpoint has what it came to
        return settings
    precision = resolve_precision("auto", resolve_device(settings.device))
    if not is_built_in(stored.model):  # a trial chose it
        precision = stored.precision
    return settings.model_copy(update={"precision": precision})


def _check_same(path: Path, checkpoint: Checkpoint, settings: Settings) -> None:
    """Raise an error if the settings are not those of the checkpoint, however they are spelled."""
    stored, may_differ = checkpoint.settings, {*MAY_CHANGE}
    if parse_arguments(stored.model_arg) == parse_arguments(settings.model_arg):
        may_differ.add("model_arg")
    if stored.model != settings.model and _is_same_network(checkpoint, settings):
        may_differ.add("model")
    there, here = dict(stored), dict(settings)
    differences = [
        f"{key} is {there[key]} there, {here[key]} here"
        for key in there
        if there[key] != here[key] and key not in may_differ
    ]
    if differences:
        raise SettingsError(f"{path} has other settings: {'; '.join(differences)}")
    state = read_state(checkpoint, path)
    epochs = state.epoch + (state.batch > 0)
    if settings.epochs < epochs:
        raise SettingsError(
            f"{path} has begun {counted(epochs, 'epoch')}: --epochs {settings.epochs} is fewer"
        )


def _is_same_network(checkpoint: Checkpoint, settings: Settings) -> bool:
    """Return whether another spec names the checkpoint's network: the same code, the same name.

    A checkpoint of version 0.1.0 has no digest of the code; there the name has to do.
    """
    if is_built_in(checkpoint.model) or is_built_in(settings.model):
        return False
    source, file = read_source(settings), source_file(settings.model, settings.model_arg)
    if source is None or checkpoint.source_sha256 not in {None, digest(source)}:
        return False

    def name_of(spec: str) -> str:
        if spec.endswith(".py"):  # the only network of the file
            return find_definition(str(file), settings.model_arg).name
        return spec.rpartition(":")[2]

    return name_of(checkpoint.model) == name_of(settings.model)
