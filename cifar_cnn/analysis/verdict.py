"""The verdict on a network: each limit of its budget held against what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.receptive_field import ReceptiveField
from cifar_cnn.analysis.structure import Sighting
from cifar_cnn.documents import analysis as documents


@dataclass(frozen=True)
class Requirement:
    """One item of the budget and how the network meets it."""

    name: str
    limit: int
    actual: int
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
        receptive_field: of the network.
        file: the pyproject.toml that set limits, if one did.
    """

    requirements: tuple[Requirement, ...]
    receptive_field: ReceptiveField
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
            "features": self.receptive_field.features_as_dict(),
            "final": self.receptive_field.final_as_dict(),
        }


@dataclass(frozen=True)
class Measured:
    """What a budget is held against."""

    parameters: int
    largest_layer: str
    mult_adds: int
    busiest_layer: str
    receptive_field: ReceptiveField
    structures: Mapping[str, Sighting]


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
    return Verdict(tuple(requirements), field, budget.file)


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Return the names; of many the first, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _size(field: ReceptiveField) -> str:
    if field.features is None:
        return "1×1"
    return "×".join(str(walk.size) for walk in field.features.walks)
