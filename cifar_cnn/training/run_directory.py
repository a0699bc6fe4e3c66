"""The folder of a run: what is in it, and when it may be written."""

from collections.abc import Sequence
from pathlib import Path

from cifar_cnn.errors import RunError
from cifar_cnn.inference.checkpoint import Checkpoint, write_checkpoint
from cifar_cnn.inference.files import write_atomically
from cifar_cnn.settings import Settings
from cifar_cnn.training.history import EpochRow, to_csv, to_log
from cifar_cnn.training.run_files import FILES, LAST, LOG, METRICS, MODEL, PREVIOUS, SETTINGS


def refuse_existing(path: Path) -> None:
    """Keep an earlier run from being overwritten.

    Raises:
        RunError: there is something at `path`.
    """
    if path.exists():
        raise RunError(
            f"run directory {path} exists: choose another --name, or --resume auto to go on with "
            "it, or --exist-ok to start it again"
        )


class RunDirectory:
    """Writes a run's files, each whole or not at all.

    The table and the log are written anew from the whole history each time, so they cannot
    disagree with the checkpoint they were written after.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "RunDirectory":
        """Make the folder of a new run; the files of an earlier run in it go.

        Raises:
            RunError: it cannot be made.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                (path / name).unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(path, error) from error
        return cls(path)

    def write_settings(self, settings: Settings) -> None:
        """Write settings.toml, which `--config` accepts."""
        self._write(SETTINGS, settings.to_toml())

    def save_last(self, checkpoint: Checkpoint) -> None:
        """Write last.pt; the one before it becomes previous.pt. At no instant is last.pt absent."""
        last = self.path / LAST
        try:
            if last.exists():
                write_atomically(self.path / PREVIOUS, last.read_bytes())
            write_checkpoint(last, checkpoint)
        except OSError as error:
            raise _cannot_write(last, error) from error

    def save(self, name: str, checkpoint: Checkpoint) -> Path:
        """Write best.pt or model.pt, and return its path."""
        path = self.path / name
        try:
            write_checkpoint(path, checkpoint)
        except OSError as error:
            raise _cannot_write(path, error) from error
        return path

    def write_history(self, rows: Sequence[EpochRow], *, finished: bool = False) -> None:
        """Write metrics.csv and training.log."""
        self._write(METRICS, to_csv(rows))
        self._write(LOG, to_log(rows, saved_as=MODEL if finished else None))

    def _write(self, name: str, text: str) -> None:
        try:
            write_atomically(self.path / name, text.encode())
        except OSError as error:
            raise _cannot_write(self.path / name, error) from error


def _cannot_write(path: Path, error: OSError) -> RunError:
    return RunError(f"{path} cannot be written: {error.strerror}")
