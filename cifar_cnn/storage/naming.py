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
    return name.endswith((".pt", ".pth", ".onnx"))


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
        CheckpointError: it is neither, and the name is that of a file of weights.
        RunError: it is neither.
    """
    path, run = Path(name), output_dir / name
    is_plain = len(path.parts) == 1
    is_run = is_plain and run.is_dir()
    if path.is_dir() and is_run and _is_run(run) and not _is_run(path):
        return run
    if path.exists() or is_run:
        return path if path.exists() else run
    hint = _suggest(path, output_dir if is_plain else None)
    if is_file_of_weights(path.name):
        raise CheckpointError(f"there is no file {path}{hint}")
    raise RunError(f"there is no run {run if is_plain else path}{hint}")


def find_checkpoint(name: Path | str, output_dir: Path = RUNS) -> Path:
    """Return a file that is named, or the `model.pt` of a run that is named as for `find_run`.

    Raises:
        CheckpointError: there is no such file of weights.
        RunError: there is no such run, or it has no `model.pt`.
    """
    run = find_run(name, output_dir)
    if not run.is_dir():
        return run
    if (run / MODEL).exists():
        return run / MODEL
    saved = [run / name for name in (LAST, PREVIOUS) if (run / name).exists()]
    instead = f", or name {saved[0]}" if saved else ""
    if (run / OFFICIAL[1]).is_file():
        reason = f"{run} holds CIFAR-10's images: name a run, and --data-dir {run.parent} beside it"
    elif not (run / SETTINGS).exists():
        reason = f"{run} is a folder without {MODEL}: name a run, or a checkpoint"
    elif is_held(run / LOCK):
        reason = f"run {run} goes on and has no {MODEL} yet: wait for its end{instead}"
    elif saved:
        command = f"cifar-cnn train --resume {shlex.quote(str(run))}"
        reason = f"run {run} is not finished and has no {MODEL}: go on with {command}{instead}"
    else:
        reason = f"run {run} was stopped before it saved anything: train it again, with --exist-ok"
    raise RunError(reason)


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in (SETTINGS, *CHECKPOINTS))


def _suggest(path: Path, output_dir: Path | None) -> str:
    """Return a hint at the run or checkpoint whose name is nearest."""
    lost = path if path.parent.is_dir() else path.parent  # a file in a run that is not there
    runs = [each.parent.name for each in (output_dir or lost.parent).glob(f"*/{SETTINGS}")]
    return did_you_mean(lost.name, [*runs, *(each.name for each in lost.parent.glob("*.pt"))])
