"""The budget of a network: its limits, where they are set, and the verdict on each."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cifar_cnn.errors import SettingsError, did_you_mean, one_line, plain_reason

if TYPE_CHECKING:
    from cifar_cnn.analysis.receptive_field import ReceptiveField
    from cifar_cnn.analysis.structure import Sighting

Structure = Literal["depthwise-separable", "dilated", "gap"]
STRUCTURES: tuple[Structure, ...] = ("depthwise-separable", "dilated", "gap")


class Budget(BaseModel):
    """Limits for a network; the defaults are the CIFAR-10 brief's.

    Two are equal if their limits are, wherever they are written.

    Args:
        max_params: parameters have to be fewer than this.
        min_rf: the smaller side of the final receptive field has to be above this, in pixels.
        min_rf_features: the smaller side of the field at the last map has to be above this.
        max_mult_adds: multiply-adds for one image have to be at most this.
        require: structures that have to be in the network.
        file: the pyproject.toml whose table set limits, as seen from the current folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_params: int | None = Field(default=200_000, ge=1)
    min_rf: int = Field(default=44, ge=0)
    min_rf_features: int | None = Field(default=None, ge=0)
    max_mult_adds: int | None = Field(default=None, ge=1)
    require: tuple[Structure, ...] = STRUCTURES
    file: str | None = Field(default=None, exclude=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budget) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash(tuple(self.model_dump().values()))


ITEMS = {name.replace("_", "-"): name for name in Budget.model_fields if name != "file"}
"""The budget's items, spelled as flags and as keys of the table."""


@dataclass(frozen=True)
class Requirement:
    """One item of the budget and how the network meets it."""

    name: str
    limit: int
    actual: int
    passed: bool
    detail: str


@dataclass(frozen=True)
class Verdict:
    """The answer to a whole budget; `file` is the pyproject.toml that set limits, if one did."""

    requirements: tuple[Requirement, ...]
    file: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every requirement is met."""
        return all(requirement.passed for requirement in self.requirements)

    def as_dict(self) -> dict[str, Any]:
        """Return it as in `summary --json`."""
        return {
            "passed": self.passed,
            "file": self.file,
            "requirements": [vars(requirement) for requirement in self.requirements],
        }


@dataclass(frozen=True)
class Measured:
    """What a budget is held against."""

    parameters: int
    largest_layer: str
    mult_adds: int
    busiest_layer: str
    receptive_field: "ReceptiveField"
    structures: "Mapping[str, Sighting]"


def read_budget(overrides: Mapping[str, Any] | None = None, folder: Path | None = None) -> Budget:
    """Return the budget: `overrides`, else `[tool.cifar-cnn.budget]` in pyproject.toml, else ours.

    Args:
        overrides: what the command line gives, by field name.
        folder: where the search for pyproject.toml begins, and goes upwards until there is the
            table; the current folder if not given.

    Raises:
        SettingsError: an item is unknown or its value invalid.
    """
    start = (folder or Path()).absolute()
    paths = (parent / "pyproject.toml" for parent in (start, *start.parents))
    tables = ((os.path.relpath(path), _read_table(path)) for path in paths)
    nothing: tuple[str | None, dict[str, Any]] = (None, {})
    file, table = next(((file, table) for file, table in tables if table is not None), nothing)
    try:
        return Budget.model_validate({**table, **(overrides or {}), "file": file})
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(dict(e)) for e in error.errors())) from error


def judge(budget: Budget, measured: Measured) -> Verdict:
    """Hold the network against the budget."""
    field = measured.receptive_field
    layer = field.features.name if field.features else "the input"
    requirements = [
        Requirement(
            "min-rf",
            budget.min_rf,
            min(field.final),
            min(field.final) > budget.min_rf,
            f"{field.final[0]}×{field.final[1]} at the output, "
            f"{_size(field)} at {layer}; has to be above the limit",
        )
    ]
    if budget.max_params is not None:
        requirements.insert(
            0,
            Requirement(
                "max-params",
                budget.max_params,
                measured.parameters,
                measured.parameters < budget.max_params,
                f"most in {measured.largest_layer}; have to be fewer than the limit",
            ),
        )
    if budget.min_rf_features is not None:
        smaller = min(walk.size for walk in field.features.walks) if field.features else 1
        requirements.append(
            Requirement(
                "min-rf-features",
                budget.min_rf_features,
                smaller,
                smaller > budget.min_rf_features,
                f"{_size(field)} at {layer}; has to be above the limit",
            )
        )
    if budget.max_mult_adds is not None:
        requirements.append(
            Requirement(
                "max-mult-adds",
                budget.max_mult_adds,
                measured.mult_adds,
                measured.mult_adds <= budget.max_mult_adds,
                f"most in {measured.busiest_layer}",
            )
        )
    for name in dict.fromkeys(budget.require):
        sighting = measured.structures[name]
        found = sighting.layers
        detail = first_few(found) or sighting.instead or "no layer of this kind"
        requirements.append(Requirement(f"require:{name}", 1, len(found), bool(found), detail))
    return Verdict(tuple(requirements), budget.file)


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Return the names; of many the first, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _size(field: "ReceptiveField") -> str:
    if field.features is None:
        return "1×1"
    return "×".join(str(walk.size) for walk in field.features.walks)


def _read_table(path: Path) -> dict[str, Any] | None:
    shown = os.path.relpath(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(f"{shown} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise SettingsError(f"{shown} is not valid TOML: {one_line(error)}") from error
    table: Any = document
    for key in ("tool", "cifar-cnn", "budget"):
        if key not in table:
            return None
        table = table[key]
        if not isinstance(table, dict):
            raise SettingsError(f"{shown}: [tool.cifar-cnn.budget] is not a table")
    for name in table:
        if name not in ITEMS:
            raise SettingsError(
                f"{shown}: unknown budget item {name!r}{did_you_mean(name, ITEMS)}: "
                f"one of {', '.join(ITEMS)}"
            )
    return {ITEMS[name]: value for name, value in table.items()}


def _explain(error: dict[str, Any]) -> str:
    name = str(error["loc"][0]).replace("_", "-")
    if error["type"] == "literal_error":
        wrong = str(error["input"])
        hint = did_you_mean(wrong, STRUCTURES)
        return f"unknown structure {wrong!r} in require{hint}: one of {', '.join(STRUCTURES)}"
    reason = plain_reason(error, f"it has to be one or more of {', '.join(STRUCTURES)}")
    return f"budget item {name} = {error['input']!r} is invalid: {reason}"
