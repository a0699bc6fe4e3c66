"""Read a run from its directory, without torch."""

import csv
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import PlainSerializer, ValidationError, computed_field

from cifar_cnn.errors import RunError, SettingsError, one_line
from cifar_cnn.recipes import read_recipe
from cifar_cnn.results import Result
from cifar_cnn.settings import Settings, validate, without_removed
from cifar_cnn.storage.files import is_held
from cifar_cnn.storage.naming import LOCK, SETTINGS, find_run
from cifar_cnn.training.history import EpochRow, SplitFigures, best_row
from cifar_cnn.training.run_files import ENVIRONMENT, METRICS, is_finished

State = Literal["finished", "interrupted", "running"]


class RunEntry(Result):
    """A run in a list of runs; `eval` is of the epoch that `model.pt` holds, None before one."""

    name: str
    run: Path
    state: State
    model: str
    recipe: str
    dataset: str
    epochs: int
    planned_epochs: int
    parameters: int | None
    eval: SplitFigures | None
    seconds: float


class RunFile(Result):
    """A file in a run's folder; `size` in bytes."""

    name: str
    size: int


class RunRecord(RunEntry):
    """A run, read without opening its checkpoints.

    `environment` is empty for a run that was stopped before it started, or of version 0.1.0.
    """

    settings: Annotated[Settings, PlainSerializer(Settings.as_dict, return_type=dict[str, Any])]
    files: tuple[RunFile, ...]
    environment: dict[str, Any]
    history: tuple[EpochRow, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def changed(self) -> dict[str, Any]:
        """The settings that differ from the recipe."""
        settings = self.settings
        recipe = read_recipe(settings.recipe, settings.epochs)
        usual = {name: recipe.get(name, f.default) for name, f in Settings.model_fields.items()}
        return {
            name: value
            for name, value in settings.as_dict().items()
            if usual[name] not in (getattr(settings, name), "auto")
        }

    @property
    def best(self) -> EpochRow | None:
        """The epoch whose network `model.pt` holds; None before the first has ended."""
        return best_row(self.history) if self.history else None

    @property
    def entry(self) -> RunEntry:
        """The run in a list of runs."""
        return RunEntry(**{name: getattr(self, name) for name in RunEntry.model_fields})


def read_run(directory: Path | str) -> RunRecord:
    """Read a run, by a name or path as `find_run` takes it.

    Raises:
        RunError: there is none, or it is no run directory, or one that this version cannot read.
    """
    path = find_run(directory)
    try:
        stored = tomllib.loads((path / SETTINGS).read_text(encoding="utf-8"))
        settings = validate(without_removed(stored))
        with (path / METRICS).open(encoding="utf-8", newline="") as file:
            history = tuple(EpochRow.model_validate(row) for row in csv.DictReader(file))
        environment = _read_environment(path / ENVIRONMENT)
    except FileNotFoundError as error:
        raise RunError(
            f"{path} is not a run directory: it lacks {SETTINGS} or {METRICS}"
        ) from error
    except OSError as error:
        raise RunError(f"run directory {path} cannot be read: {error.strerror}") from error
    except (SettingsError, ValueError, csv.Error) as error:  # ValueError is pydantic's, too
        reason = "metrics.csv differs" if isinstance(error, ValidationError) else one_line(error)
        raise RunError(f"run directory {path} is not of this version: {reason}") from error
    unfinished: State = "running" if is_held(path / LOCK) else "interrupted"
    files = sorted(each for each in path.iterdir() if each.is_file())
    return RunRecord(
        name=path.resolve().name,
        run=path,
        state="finished" if is_finished(path) else unfinished,
        model=settings.model,
        recipe=settings.recipe,
        dataset=settings.dataset,
        epochs=len(history),
        planned_epochs=settings.epochs,
        parameters=environment.get("parameters"),
        eval=best_row(history).eval if history else None,
        seconds=sum(row.seconds for row in history),
        settings=settings,
        files=tuple(
            RunFile(name=each.name, size=each.stat().st_size)
            for each in files
            if not each.name.startswith(".")
        ),
        environment=environment,
        history=history,
    )


def _read_environment(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    environment = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(environment, dict) or type(environment.get("parameters")) is not int:
        raise ValueError(f"{ENVIRONMENT} differs")
    return environment


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
