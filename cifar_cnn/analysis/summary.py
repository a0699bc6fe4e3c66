"""What a network is made of: its layers with their outputs, parameters and mult-adds; its sizes."""

import math
from collections.abc import Collection, Sequence

from torch import nn

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.network import Model, open_model, run_network
from cifar_cnn.analysis.receptive_field import analyze
from cifar_cnn.analysis.results import Summary, SummaryLayer, Totals
from cifar_cnn.analysis.rows import rows_of
from cifar_cnn.analysis.structures import candidates, find_structures
from cifar_cnn.analysis.verdict import judge
from cifar_cnn.analysis.weights import OUTSIDE, unregistered, without_effect
from cifar_cnn.errors import ModelError, first_few
from cifar_cnn.models.module import parameters_of

MEBIBYTE = 1 << 20
FLOAT32_BYTES = 4


def summarize(
    model: Model,
    input_size: tuple[int, int] = (32, 32),
    *,
    model_arg: Sequence[str] = (),
    budget: Budget | None = None,
    assume_pointwise: Collection[str] = (),
) -> Summary:
    """Summarize a network and hold it against a budget.

    Rows are all modules but containers and the network itself, in the order in which their
    forwards end; the network itself is a row where it holds parameters or computes outside of its
    modules, so that rows add up to the totals. Modules that hold parameters and do not run come
    last. A shared module's or tensor's parameters count once.

    Args:
        model: a built-in name, `module:attr`, `path.py:attr`, or a module that takes (N, 3, H, W)
            float images and returns one tensor.
        input_size: (H, W) of the image in pixels.
        model_arg: arguments of the user's class or factory, each `NAME=VALUE`.
        budget: what to hold it against; without one there is no verdict.
        assume_pointwise: as for `receptive_field`.

    Raises:
        ModelError: the network cannot be built, run or followed.
    """
    name, module, file = open_model(model, model_arg)
    run, output = run_network(module, input_size, assume_pointwise, is_strict=False)
    rows = rows_of(module, run)
    _check_answers(output.field.shape)
    totals = _totals(module, rows, input_size)
    outside = unregistered(module, run.unregistered)
    warnings = [OUTSIDE.format(", ".join(outside))] if outside else []
    field = verdict = None
    if budget is not None:
        effect = without_effect(module, input_size, candidates(run))
        if effect.parameters:
            warnings.append(f"no effect on the output: {first_few(effect.parameters)} (gradient 0)")
        field = None if run.unknown else analyze(name, run, output, budget.min_rf)
        structures = find_structures(run, output, effect.calls)
        verdict = judge(budget, rows, totals, field or run.unknown, structures, outside)
    return Summary(
        model=name,
        input_size=(3, *input_size),
        layers=tuple(rows),
        totals=totals,
        budget=verdict,
        warnings=tuple(warnings),
        checkpoint=file,
    )


def _totals(module: nn.Module, rows: Sequence[SummaryLayer], size: tuple[int, int]) -> Totals:
    parameters = sum(p.numel() for p in parameters_of(module))
    trainable = sum(p.numel() for p in parameters_of(module) if p.requires_grad)
    input_mb = 3 * math.prod(size) * FLOAT32_BYTES / MEBIBYTE
    elements = sum(math.prod(row.output_size) for row in rows if row.output_size)
    forward_backward_mb = 2 * elements * FLOAT32_BYTES / MEBIBYTE
    parameters_mb = parameters * FLOAT32_BYTES / MEBIBYTE
    return Totals(
        parameters=parameters,
        trainable=trainable,
        non_trainable=parameters - trainable,
        mult_adds=sum(row.mult_adds for row in rows),
        input_mb=input_mb,
        forward_backward_mb=forward_backward_mb,
        parameters_mb=parameters_mb,
        total_mb=input_mb + forward_backward_mb + parameters_mb,
    )


def _check_answers(shape: tuple[int, ...]) -> None:
    """Refuse a network that takes places for images; the answer to one image may lack the batch."""
    if len(shape) > 1 and shape[0] != 1:
        raise ModelError(
            f"one image gives {shape[0]} answers, of shape {tuple(shape[1:])}: a view or reshape "
            "of the network takes places for images; keep the batch first, as x.flatten(1) does"
        )
