"""A run as its directory tells it; nothing of torch is needed to read it."""

import csv
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from cifar_cnn.documents import runs as documents
from cifar_cnn.errors import RunError, SettingsError, one_line
from cifar_cnn.recipes import read_recipe
from cifar_cnn.settings import Settings, validate, without_removed
from cifar_cnn.storage.files import is_held
from cifar_cnn.storage.naming import LOCK, MODEL, SETTINGS, find_run
from cifar_cnn.training.history import EpochRow, best_row, saved_line, split_figures
from cifar_cnn.training.run_files import ENVIRONMENT, LOG, METRICS

State = Literal["finished", "interrupted", "running"]


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run without opening its checkpoints.

    Args:
        directory: of the run.
        settings: of the run.
        rows: its epochs so far.
        environment: where it ran and what its network is, as in environment.json; empty for a run
            that was stopped before it started, or of version 0.1.0.
        state: finished, interrupted or running.
    """

    directory: Path
    settings: Settings
    rows: tuple[EpochRow, ...]
    environment: dict[str, Any]
    state: State

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.directory.resolve().name

    @property
    def best(self) -> EpochRow | None:
        """The epoch whose network `model.pt` holds; None before the first has ended."""
        return best_row(self.rows) if self.rows else None

    def as_dict(self) -> documents.Run:
        """Return the run's entry in `runs --json`."""
        best = self.best
        return {
            "name": self.name,
            "run": str(self.directory),
            "state": self.state,
            "model": self.settings.model,
            "recipe": self.settings.recipe,
            "dataset": self.settings.dataset,
            "epochs": len(self.rows),
            "planned_epochs": self.settings.epochs,
            "parameters": self.environment.get("parameters"),
            "eval": split_figures(best) if best else None,
            "seconds": sum(row.seconds for row in self.rows),
        }

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that are not the recipe's own or the default."""
        recipe = read_recipe(self.settings.recipe, self.settings.epochs)
        usual = {
            name: recipe.get(name, field.default) for name, field in Settings.model_fields.items()
        }
        return {
            name: value
            for name, value in self.settings.as_dict().items()
            if usual[name] not in (getattr(self.settings, name), "auto")
        }

    @property
    def files(self) -> dict[str, int]:
        """The files in the directory that are not hidden, with their size in bytes."""
        return {
            each.name: each.stat().st_size
            for each in sorted(self.directory.iterdir())
            if each.is_file() and not each.name.startswith(".")
        }

    def shown(self) -> documents.RunShown:
        """Return the document that `runs show --json` prints."""
        return {
            **self.as_dict(),
            "settings": self.settings.as_dict(),
            "changed": self.changed,
            "files": [{"name": name, "size": size} for name, size in self.files.items()],
            "environment": self.environment,
            "history": [row.as_dict() for row in self.rows],
        }


def read_run(directory: Path | str) -> RunRecord:
    """Read a run that is named as for `find_run`.

    Raises:
        RunError: there is none, or it is no run directory, or one that this version cannot read.
    """
    path = find_run(directory)
    try:
        stored = tomllib.loads((path / SETTINGS).read_text(encoding="utf-8"))
        settings = validate(without_removed(stored))
        rows = _read_metrics(path / METRICS)
        environment = _read_environment(path / ENVIRONMENT)
        state = _state(path)
    except FileNotFoundError as error:
        raise RunError(
            f"{path} is not a run directory: it lacks {SETTINGS} or {METRICS}"
        ) from error
    except OSError as error:
        raise RunError(f"run directory {path} cannot be read: {error.strerror}") from error
    except (SettingsError, ValidationError, ValueError) as error:
        reason = "metrics.csv differs" if isinstance(error, ValidationError) else one_line(error)
        raise RunError(f"run directory {path} is not of this version: {reason}") from error
    return RunRecord(path, settings, rows, environment, state)


def find_runs(parent: Path) -> tuple[list[RunRecord], list[str]]:
    """Read the runs in a folder, by name; also return one line for each that cannot be read.

    Raises:
        RunError: there is no such folder.
    """
    if not parent.is_dir():
        raise RunError(
            f"there is no folder {parent}: cifar-cnn train makes it, or --output-dir names another"
        )
    records, refused = [], []
    for each in sorted(parent.iterdir()):
        try:
            if (each / SETTINGS).is_file():
                records.append(read_run(each))
        except RunError as error:
            refused.append(str(error))
        except OSError as error:
            refused.append(f"{each} cannot be read: {error.strerror}")
    return records, refused


def _read_metrics(path: Path) -> tuple[EpochRow, ...]:
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(EpochRow.model_validate(row) for row in csv.DictReader(file))


def _read_environment(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    environment = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(environment, dict) or type(environment.get("parameters")) is not int:
        raise ValueError(f"{ENVIRONMENT} differs")
    return environment


def _state(path: Path) -> State:
    log, model = path / LOG, path / MODEL
    said = log.read_text(encoding="utf-8") if log.exists() else ""
    if said.endswith(saved_line(MODEL)) and model.exists():
        return "finished"
    return "running" if is_held(path / LOCK) else "interrupted"
