"""The budget of a network: its limits, and where they are set. Needs no torch."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cifar_cnn.analysis.devices import Bytes, expand_preset
from cifar_cnn.errors import SettingsError, did_you_mean, one_line, plain_reason

Structure = Literal["depthwise-separable", "dilated", "gap"]
STRUCTURES: tuple[Structure, ...] = ("depthwise-separable", "dilated", "gap")


class Budget(BaseModel):
    """Limits for a network; the defaults are the CIFAR-10 brief's.

    Two are equal if their limits are, wherever they are written.

    Args:
        max_params: parameters must be below this.
        min_rf: the smaller side of the final receptive field must be above this, in pixels.
        min_rf_features: the smaller side of the field at the last map must be above this.
        max_mult_adds: multiply-adds for one image must be at most this.
        max_flash: weights in int8 must be at most this, in bytes or as text with a unit (128kB).
        max_ram: live activations in int8 must be at most this, as `max_flash`.
        require: structures that the network must contain.
        file: the pyproject.toml whose table set limits, as seen from the current folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_params: int | None = Field(default=200_000, ge=1)
    min_rf: int = Field(default=44, ge=0)
    min_rf_features: int | None = Field(default=None, ge=0)
    max_mult_adds: int | None = Field(default=None, ge=1)
    max_flash: Bytes | None = None
    max_ram: Bytes | None = None
    require: tuple[Structure, ...] = STRUCTURES
    file: str | None = Field(default=None, exclude=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budget) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash(tuple(self.model_dump().values()))


ITEMS = {name.replace("_", "-"): name for name in Budget.model_fields if name != "file"}
ITEMS["device-preset"] = "device_preset"
"""The budget's items, spelled as flags and as keys of the table; a preset sets two others."""


def read_budget(overrides: Mapping[str, Any] | None = None, folder: Path | None = None) -> Budget:
    """Return the budget: `overrides`, else `[tool.cifar-cnn.budget]` in pyproject.toml, else ours.

    Args:
        overrides: what the command line gives, by field name; None where it gives nothing.
            `device_preset` is the name of a board, whose flash and RAM are the limits.
        folder: where the search for pyproject.toml begins, and goes upwards until there is the
            table; the current folder if not given.

    Raises:
        SettingsError: an item is unknown or its value invalid.
    """
    start = (folder or Path()).absolute()
    limits: dict[str, Any] = {}
    for parent in (start, *start.parents):
        if (table := _read_table(parent / "pyproject.toml")) is not None:
            limits = {**expand_preset(table), "file": os.path.relpath(parent / "pyproject.toml")}
            break
    flags = {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        return Budget.model_validate({**limits, **expand_preset(flags)})
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(dict(e)) for e in error.errors())) from error


def _read_table(path: Path) -> dict[str, Any] | None:
    """Return the limits that a file sets by field name, or None if it has no such table."""
    file = os.path.relpath(path)
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise SettingsError(f"{file} is not valid TOML: {one_line(error)}") from error
    for key in ("tool", "cifar-cnn", "budget"):
        if key not in table:
            return None
        table = table[key]
        if not isinstance(table, dict):
            raise SettingsError(f"{file}: [tool.cifar-cnn.budget] is not a table")
    for name in table:
        if name not in ITEMS:
            wrong = f"unknown budget item {name!r}{did_you_mean(name, ITEMS)}"
            raise SettingsError(f"{file}: {wrong}: one of {', '.join(ITEMS)}")
    return {ITEMS[name]: value for name, value in table.items()}


def _explain(error: dict[str, Any]) -> str:
    name = str(error["loc"][0]).replace("_", "-")
    if error["type"] == "literal_error":
        wrong = str(error["input"])
        hint = did_you_mean(wrong, STRUCTURES)
        return f"unknown structure {wrong!r} in require{hint}: one of {', '.join(STRUCTURES)}"
    reason = plain_reason(error, f"it has to be one or more of {', '.join(STRUCTURES)}")
    return f"budget item {name} = {error['input']!r} is invalid: {reason}"
