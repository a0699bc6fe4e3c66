"""From what was asked for to what a run starts with: fresh, or from a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cifar_cnn.errors import CheckpointError, SettingsError
from cifar_cnn.inference.checkpoint import Checkpoint, read_checkpoint
from cifar_cnn.settings import DEFAULT_RECIPE, Settings, read_recipe, validate
from cifar_cnn.training.history import EpochRow
from cifar_cnn.training.run_directory import refuse_existing
from cifar_cnn.training.run_files import LAST, MODEL

MAY_CHANGE = ("epochs", "device", "data_dir", "recipe")
"""Settings that a resumed run may change: how long, where, and names that decide nothing."""


@dataclass(frozen=True)
class Plan:
    """What a run starts with, and where.

    Args:
        settings: of the run.
        directory: of the run.
        checkpoint: to go on from; None to start afresh.
        replace: whether the files of an earlier run in the directory may go.
    """

    settings: Settings
    directory: Path
    checkpoint: Checkpoint | None = None
    replace: bool = False

    @property
    def finished_history(self) -> list[EpochRow] | None:
        """The epochs of a run that has nothing left to do; None where something is left."""
        if self.checkpoint is None or not (self.directory / MODEL).exists():
            return None
        history = read_history(self.checkpoint)
        return history if len(history) >= self.settings.epochs else None


def plan_run(
    given: Mapping[str, Any],
    *,
    output_dir: Path = Path("runs"),
    name: str | None = None,
    resume: Path | Literal["auto"] | None = None,
    exist_ok: bool = False,
) -> Plan:
    """Settle what a run starts with, and where; nothing is written.

    Args:
        given: settings that were asked for, from `given_settings`.
        output_dir: parent of new run directories.
        name: of the run directory; date, time and recipe, or where the resumed run is, unless said.
        resume: a checkpoint or a run directory to go on from; `auto` is this run's own directory,
            if there is something to go on from; None starts afresh.
        exist_ok: start again where there is a run.

    Raises:
        SettingsError: a setting is unknown, invalid, or contradicts the checkpoint's.
        CheckpointError: the checkpoint is missing, damaged, or no training can go on from it.
        RunError: there is a run in the directory, and neither `exist_ok` nor `resume` was said.
    """
    directory = output_dir / name if name else None
    source = resume if isinstance(resume, Path) else None
    if resume == "auto" and directory and (directory / LAST).exists():
        source = directory
    if source is not None:
        return _resumed(given, source, directory)
    settings = validate({**read_recipe(DEFAULT_RECIPE), **given})
    directory = directory or output_dir / f"{datetime.now():%Y%m%d-%H%M%S}-{settings.recipe}"
    replace = exist_ok or resume == "auto"
    if not replace:
        refuse_existing(directory)
    return Plan(settings, directory, replace=replace)


def read_history(checkpoint: Checkpoint) -> list[EpochRow]:
    """Return the epochs that a `last.pt` has behind it."""
    assert checkpoint.training is not None
    return [EpochRow.model_validate(row) for row in checkpoint.training["history"]]


def _resumed(given: Mapping[str, Any], source: Path, directory: Path | None) -> Plan:
    path = source / LAST if source.is_dir() else source
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, Checkpoint) or checkpoint.training is None:
        raise CheckpointError(f"{path} cannot be resumed: it holds no training state; use {LAST}")
    stored = checkpoint.settings
    asked = {key: value for key, value in given.items() if value != "auto"}
    settings = validate({**stored.model_dump(), "device": "auto", **asked})
    differences = [
        f"{key} is {getattr(stored, key)} there, {getattr(settings, key)} here"
        for key in Settings.model_fields
        if key not in MAY_CHANGE and getattr(stored, key) != getattr(settings, key)
    ]
    if differences:
        raise SettingsError(f"{path} has other settings: {'; '.join(differences)}")
    if directory is not None and directory.resolve() != path.parent.resolve():
        refuse_existing(directory)
    return Plan(settings, directory or path.parent, checkpoint)
