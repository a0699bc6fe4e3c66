"""The verdict on a network: each limit of its budget held against what was measured."""

import operator
from collections.abc import Callable, Mapping, Sequence

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.results import ReceptiveField, Requirement, SummaryLayer, Totals, Verdict
from cifar_cnn.analysis.structures import Sighting
from cifar_cnn.analysis.weights import OUTSIDE


def judge(
    budget: Budget,
    rows: Sequence[SummaryLayer],
    totals: Totals,
    field: ReceptiveField | str,
    structures: Mapping[str, Sighting],
    outside: Sequence[str] = (),
) -> Verdict:
    """Compare a network with the budget.

    `field` may say why the receptive fields are not known, and `outside` where learned tensors are
    kept that are not among the network's parameters.
    """
    if isinstance(field, str):
        smallest, smallest_features, at_map, at_output = None, None, field, field
    else:
        sides, final = field.features.receptive_field, field.final.receptive_field
        layer = "the input" if field.features.layer == "input" else field.features.layer
        at_map = f"{sides[0]}×{sides[1]} at {layer}; must be above the limit"
        at_output = f"{final[0]}×{final[1]} at the output, {at_map}"
        smallest, smallest_features = min(final), min(sides)
    fewer = f"most in {_most(rows, 'parameters')}; must be below the limit"
    most = f"most in {_most(rows, 'mult_adds')}"
    items: list[tuple[str, int | None, int | None, Callable[[int, int], bool], str]] = [
        ("max-params", budget.max_params, totals.parameters, operator.lt, fewer),
        ("min-rf", budget.min_rf, smallest, operator.gt, at_output),
        ("min-rf-features", budget.min_rf_features, smallest_features, operator.gt, at_map),
        ("max-mult-adds", budget.max_mult_adds, totals.mult_adds, operator.le, most),
    ]
    items += [
        (f"require:{name}", 1, len(structures[name].layers), operator.ge, structures[name].detail)
        for name in dict.fromkeys(budget.require)
    ]
    if outside:
        detail = OUTSIDE.format(", ".join(outside))
        items.append(("registered", 0, len(outside), operator.le, detail))
    requirements = [
        Requirement(
            name=name,
            limit=limit,
            actual=actual,
            passed=actual is not None and meets(actual, limit),
            detail=detail,
        )
        for name, limit, actual, meets, detail in items
        if limit is not None
    ]
    return Verdict(
        passed=all(each.passed for each in requirements),
        file=budget.file,
        requirements=tuple(requirements),
        features=None if isinstance(field, str) else field.features,
        final=None if isinstance(field, str) else field.final,
    )


def _most(rows: Sequence[SummaryLayer], attribute: str) -> str:
    """Return the name of the row whose attribute is largest."""
    return max(rows, key=lambda row: getattr(row, attribute)).name if rows else "no layer"
