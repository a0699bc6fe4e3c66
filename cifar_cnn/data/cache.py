"""Decoded images kept under the user's cache folder; `CIFAR_CNN_CACHE` moves it."""

import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray


def cache_folder() -> Path | None:
    """Return $CIFAR_CNN_CACHE, else the system's place for a cache; None where there is no home."""
    if moved := os.environ.get("CIFAR_CNN_CACHE"):
        return Path(moved)
    try:
        return platformdirs.user_cache_path("cifar-cnn")
    except RuntimeError:
        return None


def read_cache(key: str) -> dict[str, NDArray[np.uint8]] | None:
    """Return the arrays kept under `key`, or None where there are none or they are damaged."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        with (folder / f"{key}.npz").open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            return {name: arrays[name] for name in arrays.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return None


def write_cache(key: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Keep the arrays under `key`; a cache that cannot be written costs time, not the run."""
    folder = cache_folder()
    if folder is None:
        return
    path = folder / f"{key}.npz"
    temporary = path.with_name(f"{key}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
    except OSError:
        return
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
