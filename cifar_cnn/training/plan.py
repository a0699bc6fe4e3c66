"""Decide what a run starts with: fresh weights, or a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cifar_cnn.errors import CheckpointError, RequestError, SettingsError, counted
from cifar_cnn.models.registry import check_settings, find_definition, is_built_in, source_file
from cifar_cnn.runtime import resolve_device, resolve_precision
from cifar_cnn.settings import Settings, complete_settings, parse_arguments, validate
from cifar_cnn.storage.checkpoint import Checkpoint, check_code, read_checkpoint
from cifar_cnn.storage.naming import LAST, MODEL, PREVIOUS, RUNS, find_run
from cifar_cnn.storage.network import changed_source, digest, read_source
from cifar_cnn.training.history import RunResult, conclude_run
from cifar_cnn.training.run_files import Replace, check_free, check_resumable, is_finished
from cifar_cnn.training.state import read_state

MAY_CHANGE = ("epochs", "device", "threads", "data_dir", "recipe")
"""Settings that a resumed run may change: how long, where, and names that decide nothing."""


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
    resume: Path | Literal["auto"] | None = None,
    exist_ok: bool = False,
) -> Plan:
    """Settle what a run starts with, and where; nothing is written.

    Args:
        given: settings that were asked for, from `merge_settings`.
        output_dir: parent of new run directories, and of runs that are named.
        name: of the run directory; date, time and recipe, or where the resumed run is, unless said.
        resume: a run to go on from, by name or path, or a checkpoint; `auto` is this run's own
            directory, or its previous.pt where last.pt is damaged, or a start where no run has
            saved anything; None starts afresh.
        exist_ok: start again where there is a run.

    Raises:
        SettingsError: a setting is unknown, invalid, or contradicts the checkpoint's.
        RequestError: `auto` without a name, or a name that is a path.
        CheckpointError: the checkpoint is missing, damaged, or no training can go on from it.
        RunError: there is a run in the directory, and neither `exist_ok` nor `resume` was said.
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
            path, checkpoint, notes = _last_good(directory)
            return _resumed(given, path, checkpoint, directory, notes)
    elif resume is not None:
        path = find_run(resume, output_dir)
        path = path / LAST if path.is_dir() else path
        return _resumed(given, path, _read(path), directory)
    settings = complete_settings(given)
    check_settings(settings)
    if directory is None:
        directory = output_dir / f"{datetime.now():%Y%m%d-%H%M%S}-{settings.recipe}"
        return Plan(settings, directory, numbered=True)
    replace: Replace = exist_ok or ("unsaved" if resume == "auto" else False)
    check_free(directory, replace=replace)
    return Plan(settings, directory, replace=replace)


def _read(path: Path) -> Checkpoint:
    checkpoint = read_checkpoint(path, to_train=True)
    if not isinstance(checkpoint, Checkpoint) or checkpoint.training is None:
        raise CheckpointError(f"{path} cannot be resumed: it holds no training state; use {LAST}")
    read_state(checkpoint, path)
    return checkpoint


def _last_good(directory: Path) -> tuple[Path, Checkpoint, tuple[str, ...]]:
    """Return last.pt, or, with a note, previous.pt where last.pt is missing or damaged."""
    last, previous = directory / LAST, directory / PREVIOUS
    try:
        return last, _read(last), ()
    except CheckpointError as error:
        if not previous.exists():
            raise
        try:
            checkpoint = _read(previous)
        except CheckpointError as second:
            raise CheckpointError(f"{error}; {second}") from second
        epochs = counted(read_state(checkpoint, previous).epoch, "epoch")
        return previous, checkpoint, (f"{error}; going on from {PREVIOUS}, {epochs} done",)


def _resumed(
    given: Mapping[str, Any],
    path: Path,
    checkpoint: Checkpoint,
    directory: Path | None,
    notes: tuple[str, ...] = (),
) -> Plan:
    arguments = check_code(checkpoint, path, given)
    stored = checkpoint.settings
    settings = validate({**stored.model_dump(), "device": "auto", **given})
    if settings.precision == "auto":  # said so, as the stored one is what it came to
        precision = resolve_precision("auto", resolve_device(settings.device))
        if not is_built_in(stored.model):  # a trial chose it
            precision = stored.precision
        settings = settings.model_copy(update={"precision": precision})
    differences = [
        f"{key} is {getattr(stored, key)} there, {getattr(settings, key)} here"
        for key in Settings.model_fields
        if key not in MAY_CHANGE and not _is_same(key, checkpoint, settings)
    ]
    if differences:
        raise SettingsError(f"{path} has other settings: {'; '.join(differences)}")
    changed = changed_source(path, checkpoint, settings)
    elsewhere = directory is not None and directory.resolve() != path.parent.resolve()
    if changed and not elsewhere:
        changed += "; going on replaces the copy by the new code's"
    notes = (*notes, *filter(None, (arguments, changed)))
    state = read_state(checkpoint, path)
    begun = state.epoch + (state.batch > 0)
    if settings.epochs < begun:
        raise SettingsError(
            f"{path} has begun {counted(begun, 'epoch')}: --epochs {settings.epochs} is fewer"
        )
    if directory is not None and elsewhere:
        check_free(directory)
    else:
        check_resumable(path.parent)
    return Plan(settings, directory or path.parent, checkpoint, notes=notes)


def _is_same(key: str, checkpoint: Checkpoint, settings: Settings) -> bool:
    """Return whether a setting means the same as in the checkpoint, however it is spelled."""
    there, here = getattr(checkpoint.settings, key), getattr(settings, key)
    if key == "model_arg":
        return parse_arguments(there) == parse_arguments(here)
    return there == here or (key == "model" and _is_same_network(checkpoint, settings))


def _is_same_network(checkpoint: Checkpoint, settings: Settings) -> bool:
    """Return whether another spec names the checkpoint's network: the same code, the same name.

    A checkpoint of version 0.1.0 has no digest of the code; there the name has to do.
    """
    if is_built_in(checkpoint.model) or is_built_in(settings.model):
        return False
    source = read_source(settings)
    if source is None or checkpoint.source_sha256 not in {None, digest(source)}:
        return False
    named = {_attribute(each) for each in (checkpoint.model, settings.model)}
    if "" in named:  # the only network of the file
        file = source_file(settings.model, settings.model_arg)
        named = named - {""} | {find_definition(str(file), settings.model_arg).name}
    return len(named) == 1


def _attribute(spec: str) -> str:
    """Return the part of `path.py:attr` or `module:attr` after the colon; of `path.py` nothing."""
    return "" if spec.endswith(".py") else spec.rpartition(":")[2]
