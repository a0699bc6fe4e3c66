"""What a network is made of: its layers with their outputs, parameters and mult-adds; its sizes."""

import math
from collections.abc import Collection, Sequence

import torch
from torch import nn

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.network import Model, open_model, run_network
from cifar_cnn.analysis.receptive_field import analyze
from cifar_cnn.analysis.results import Summary, SummaryLayer, Totals
from cifar_cnn.analysis.run import Run
from cifar_cnn.analysis.structures import candidates, find_structures
from cifar_cnn.analysis.verdict import judge
from cifar_cnn.analysis.weights import OUTSIDE, unregistered, without_effect
from cifar_cnn.errors import ModelError, first_few
from cifar_cnn.models.layers import type_name
from cifar_cnn.models.module import parameters_of

MEBIBYTE = 1 << 20
FLOAT32_BYTES = 4
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
UNLISTED = (nn.ModuleList, nn.ParameterList, torch.jit.ScriptModule)
"""Modules that run inside of others, as parametrizations do: what they compute counts there."""


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
        model: what `open_network` takes or returns, or a module that takes (N, 3, H, W) float
            images and returns one tensor.
        input_size: (H, W) of the image in pixels.
        model_arg: arguments of the user's class or factory, each `NAME=VALUE`.
        budget: what to hold it against; without one there is no verdict.
        assume_pointwise: as for `receptive_field`.

    Raises:
        ModelError: the network cannot be built, run or followed.
    """
    name, module, file = open_model(model, model_arg)
    run, output = run_network(module, input_size, assume_pointwise, is_strict=False)
    rows = _rows_of(module, run)
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


def _rows_of(model: nn.Module, run: Run) -> list[SummaryLayer]:
    """Return the rows of a network that has run, as `summarize` orders them."""
    names = {module: name for name, module in nn.Module.named_modules(model)}
    counted: set[int] = set()
    rows, unlisted = [], 0
    for module, size, mult_adds in run.calls.ended:
        if isinstance(module, UNLISTED) and module is not model:
            unlisted += mult_adds
            continue
        own = mult_adds + (unlisted if module is model else 0)
        parameters = _count_new(module, counted)
        is_row = not isinstance(module, CONTAINERS) and module is not model
        if is_row or parameters or own:
            name = names.get(module) or type_name(module)
            rows.append(_row(name, module, size, parameters, own))
    for module, name in names.items():  # what holds parameters and did not run as a module
        if parameters := _count_new(module, counted):
            rows.append(_row(name, module, (), parameters, 0))
    return rows


def _count_new(module: nn.Module, counted: set[int]) -> int:
    """Return how many parameters a module holds itself that are not counted yet; note them."""
    fresh = {id(p): p.numel() for _, p in nn.Module.named_parameters(module, recurse=False)}
    new = sum(count for key, count in fresh.items() if key not in counted)
    counted.update(fresh)
    return new


def _row(
    name: str, module: nn.Module, size: tuple[int, ...], parameters: int, mult_adds: int
) -> SummaryLayer:
    return SummaryLayer(
        name=name,
        type=type_name(module),
        output_size=size,
        parameters=parameters,
        mult_adds=mult_adds,
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
