"""How a run is named: by its path, or by its name in the folder of the runs. No torch is needed."""

import shlex
from pathlib import Path

from cifar_cnn.data.layout import OFFICIAL
from cifar_cnn.errors import CheckpointError, RunError, did_you_mean
from cifar_cnn.settings.fields import MODELS
from cifar_cnn.storage.files import is_held

RUNS = Path("runs")
"""Where runs are, unless another folder is named."""

SETTINGS = "settings.toml"
LAST = "last.pt"
PREVIOUS = "previous.pt"
BEST = "best.pt"
MODEL = "model.pt"
LOCK = ".lock"
CHECKPOINTS = (LAST, PREVIOUS, BEST, MODEL)


def is_file_of_weights(name: str) -> bool:
    """Return whether a string names a file of weights."""
    return name.endswith((".pt", ".pth"))


def is_spec(name: Path | str) -> bool:
    """Return whether this names a network of a module or file, and not a run or its weights."""
    if not isinstance(name, str) or is_file_of_weights(name):
        return False
    is_run = Path(name).is_dir() or (Path(name).name == name and (RUNS / name).is_dir())
    return name in MODELS or not is_run


def find_run(name: Path | str, output_dir: Path = RUNS) -> Path:
    """Return the path of that name if it exists, else the run of that name in `output_dir`.

    That run comes before a folder of the same name that is no run, such as one of images.

    Raises:
        RunError: it is neither.
    """
    path = Path(name)
    found = _find(path, output_dir)
    if found is None:
        missing = output_dir / path if _is_plain(path) else path
        raise RunError(f"there is no run {missing}{_nearest(path, output_dir)}")
    return found


def find_checkpoint(name: Path | str, output_dir: Path = RUNS) -> Path:
    """Return a file that is named, or the `model.pt` of a run that is named as for `find_run`.

    Raises:
        CheckpointError: there is neither such a file nor such a run.
        RunError: the run has no `model.pt`, or the folder is none.
    """
    found = find_stored(name, output_dir)
    if not found.is_dir():
        return found
    if not (found / MODEL).exists():
        raise RunError(_without_model(found))
    return found / MODEL


def find_stored(name: Path | str, output_dir: Path) -> Path:
    """Return a file that is named, or the folder of a run that is named as for `find_run`."""
    path = Path(name)
    found = _find(path, output_dir)
    if found is None:
        hint = _nearest(path, output_dir)
        raise CheckpointError(
            f"checkpoint {path} cannot be read: there is no such file or run{hint}"
        )
    return found


def _find(path: Path, output_dir: Path) -> Path | None:
    run = output_dir / path
    is_run = _is_plain(path) and run.is_dir()
    if is_run and path.is_dir() and _is_run(run) and not _is_run(path):
        return run
    return path if path.exists() else run if is_run else None


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in (SETTINGS, *CHECKPOINTS))


def _is_plain(path: Path) -> bool:
    """Return whether this is a name, and not a path."""
    return len(path.parts) == 1


def _nearest(path: Path, output_dir: Path) -> str:
    """Return a hint at the run or checkpoint whose name is nearest."""
    if _is_plain(path):
        files, folder = Path(), output_dir
    else:
        path = path if path.parent.is_dir() else path.parent  # a file in a run that is not there
        files = folder = path.parent
    runs = [each.parent.name for each in folder.glob(f"*/{SETTINGS}")]
    return did_you_mean(path.name, [*runs, *(each.name for each in files.glob("*.pt"))])


def _without_model(run: Path) -> str:
    """Return why a folder has no `model.pt`, and what to do."""
    if (run / OFFICIAL[1]).is_file():
        return f"{run} holds CIFAR-10's images: name a run, and --data-dir {run.parent} beside it"
    if not (run / SETTINGS).exists():
        return f"{run} is a folder without {MODEL}: name a run, or a checkpoint"
    saved = [run / name for name in (LAST, PREVIOUS) if (run / name).exists()]
    instead = f", or name {saved[0]}" if saved else ""
    if is_held(run / LOCK):
        return f"run {run} goes on and has no {MODEL} yet: wait for its end{instead}"
    if not saved:
        return f"run {run} was stopped before it saved anything: train it again, with --exist-ok"
    return (
        f"run {run} is not finished and has no {MODEL}: "
        f"go on with cifar-cnn train --resume {shlex.quote(str(run))}{instead}"
    )
