"""The verdict on a network: each limit of its budget held against what was measured."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.receptive_field import ReceptiveField
from cifar_cnn.analysis.rows import SummaryRow
from cifar_cnn.analysis.structures import Sighting
from cifar_cnn.analysis.weights import OUTSIDE
from cifar_cnn.documents import analysis as documents


@dataclass(frozen=True)
class Requirement:
    """One item of the budget and how the network meets it."""

    name: str
    limit: int
    actual: int | None
    passed: bool
    detail: str

    def as_dict(self) -> documents.Requirement:
        """Return it as in `summarize --json`."""
        return {
            "name": self.name,
            "limit": self.limit,
            "actual": self.actual,
            "passed": self.passed,
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Verdict:
    """The answer to a whole budget.

    Args:
        requirements: its items.
        receptive_field: of the network; None if an operation is unknown.
        file: the pyproject.toml that set limits, if one did.
    """

    requirements: tuple[Requirement, ...]
    receptive_field: ReceptiveField | None
    file: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every requirement is met."""
        return all(requirement.passed for requirement in self.requirements)

    def as_dict(self) -> documents.BudgetVerdict:
        """Return it as in `summarize --json`."""
        return {
            "passed": self.passed,
            "file": self.file,
            "requirements": [requirement.as_dict() for requirement in self.requirements],
            "features": self.receptive_field.features_as_dict() if self.receptive_field else None,
            "final": self.receptive_field.final_as_dict() if self.receptive_field else None,
        }


def judge(
    budget: Budget,
    rows: Sequence[SummaryRow],
    parameters: int,
    field: ReceptiveField | str,
    structures: Mapping[str, Sighting],
    outside: Sequence[str] = (),
) -> Verdict:
    """Hold a network against the budget.

    Args:
        budget: its limits.
        rows: of the network's table.
        parameters: how many it has.
        field: its receptive fields, or why they are not known.
        structures: where it has those that may be required.
        outside: where learned tensors are kept that are not among its parameters.
    """
    if isinstance(field, str):
        smallest, smallest_features, at_map, at_output = None, None, field, field
    else:
        sides = [walk.size for walk in field.features.walks] if field.features else [1, 1]
        layer = field.features.name if field.features else "the input"
        at_map = f"{sides[0]}×{sides[1]} at {layer}; has to be above the limit"
        at_output = f"{field.final[0]}×{field.final[1]} at the output, {at_map}"
        smallest, smallest_features = min(field.final), min(sides)
    fewer = f"most in {_most(rows, 'parameters')}; have to be fewer than the limit"
    mult_adds, most = sum(row.mult_adds for row in rows), f"most in {_most(rows, 'mult_adds')}"
    items: list[tuple[str, int | None, int | None, Callable[[int, int], bool], str]] = [
        ("max-params", budget.max_params, parameters, operator.lt, fewer),
        ("min-rf", budget.min_rf, smallest, operator.gt, at_output),
        ("min-rf-features", budget.min_rf_features, smallest_features, operator.gt, at_map),
        ("max-mult-adds", budget.max_mult_adds, mult_adds, operator.le, most),
    ]
    requirements = [
        Requirement(name, limit, actual, actual is not None and meets(actual, limit), detail)
        for name, limit, actual, meets, detail in items
        if limit is not None
    ]
    for name in dict.fromkeys(budget.require):
        sighting = structures[name]
        found = sighting.layers
        detail = first_few(found) or sighting.instead or "no layer of this kind"
        requirements.append(Requirement(f"require:{name}", 1, len(found), bool(found), detail))
    if outside:
        detail = OUTSIDE.format(", ".join(outside))
        requirements.append(Requirement("registered", 0, len(outside), False, detail))
    return Verdict(tuple(requirements), None if isinstance(field, str) else field, budget.file)


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Return the names; of many the first, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _most(rows: Sequence[SummaryRow], attribute: str) -> str:
    """Return the name of the row whose attribute is largest."""
    return max(rows, key=lambda row: getattr(row, attribute)).name if rows else "no layer"
