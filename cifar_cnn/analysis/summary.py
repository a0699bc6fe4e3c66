"""What a network is made of: its layers with their outputs, parameters and mult-adds; its sizes."""

import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import nn

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.device_memory import measure_memory
from cifar_cnn.analysis.network import Model, open_model, run_network
from cifar_cnn.analysis.receptive_field import analyze
from cifar_cnn.analysis.results import (
    DeviceMemory,
    Features,
    Final,
    ReceptiveField,
    Requirement,
    Summary,
    SummaryLayer,
    Totals,
    Verdict,
)
from cifar_cnn.analysis.run import Run
from cifar_cnn.analysis.structures import candidates, find_structures
from cifar_cnn.analysis.weights import OUTSIDE, unregistered, without_effect
from cifar_cnn.errors import ModelError, first_few
from cifar_cnn.models.layers import type_name
from cifar_cnn.models.module import parameters_of

FLOATS_PER_MIB = (1 << 20) / 4
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
    shape = output.field.shape
    if len(shape) > 1 and shape[0] != 1:  # the answer to one image may lack the batch
        raise ModelError(
            f"one image gives {shape[0]} answers, of shape {tuple(shape[1:])}: a view or reshape "
            "of the network takes places for images; keep the batch first, as x.flatten(1) does"
        )
    totals = _totals(module, rows, input_size)
    memory = measure_memory(run, output)
    outside = unregistered(module, run.unregistered)
    warnings = [OUTSIDE.format(", ".join(outside))] if outside else []
    verdict = None
    if budget is not None:
        idle, dead = without_effect(module, input_size, candidates(run))
        if idle:
            warnings.append(f"no effect on the output: {first_few(idle)} (gradient 0)")
        field = run.unknown or analyze(name, run, output, budget.min_rf)
        structures = find_structures(run, output, dead)
        verdict = _judge(budget, rows, totals, memory, field, structures, outside)
    return Summary(
        model=name,
        input_size=(3, *input_size),
        layers=tuple(rows),
        totals=totals,
        device=memory,
        budget=verdict,
        warnings=tuple(warnings),
        checkpoint=file,
    )


def _rows_of(model: nn.Module, run: Run) -> list[SummaryLayer]:
    """Return the rows of a network that has run, as `summarize` orders them."""
    names = {module: name for name, module in nn.Module.named_modules(model)}
    counted: set[int] = set()
    rows, unlisted = [], 0

    def add_row(module: nn.Module, size: tuple[int, ...], mult_adds: int, *, is_row: bool) -> None:
        own = {id(p): p.numel() for _, p in nn.Module.named_parameters(module, recurse=False)}
        parameters = sum(count for key, count in own.items() if key not in counted)
        counted.update(own)
        if is_row or parameters or mult_adds:
            row = SummaryLayer(
                name=names.get(module) or type_name(module),
                type=type_name(module),
                output_size=size,
                parameters=parameters,
                mult_adds=mult_adds,
            )
            rows.append(row)

    for ended in run.calls.ended:
        is_model = ended.module is model
        if isinstance(ended.module, UNLISTED) and not is_model:
            unlisted += ended.mult_adds
            continue
        is_row = not isinstance(ended.module, CONTAINERS) and not is_model
        own = ended.mult_adds + (unlisted if is_model else 0)
        add_row(ended.module, ended.output_size, own, is_row=is_row)
    for module in names:  # what holds parameters and did not run as a module
        add_row(module, (), 0, is_row=False)
    return rows


def _totals(module: nn.Module, rows: Sequence[SummaryLayer], size: tuple[int, int]) -> Totals:
    parameters = sum(p.numel() for p in parameters_of(module))
    trainable = sum(p.numel() for p in parameters_of(module) if p.requires_grad)
    input_mb = 3 * math.prod(size) / FLOATS_PER_MIB
    elements = sum(math.prod(row.output_size) for row in rows if row.output_size)
    forward_backward_mb = 2 * elements / FLOATS_PER_MIB
    parameters_mb = parameters / FLOATS_PER_MIB
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


def _judge(
    budget: Budget,
    rows: Sequence[SummaryLayer],
    totals: Totals,
    memory: DeviceMemory,
    field: ReceptiveField | str,
    structures: Mapping[str, tuple[int, str]],
    outside: Sequence[str],
) -> Verdict:
    """Compare a network with the budget; `field` may say why receptive fields are not known."""
    if isinstance(field, str):
        features, final, at_map, at_output = None, None, field, field
    else:
        features, final = field.features, field.final
        where = "the input" if features.layer == "input" else features.layer
        at_map = f"{_size(features)} at {where}; must be above the limit"
        at_output = f"{_size(final)} at the output, {at_map}"
    fewer = f"most in {_most(rows, 'parameters')}; must be below the limit"
    most = f"most in {_most(rows, 'mult_adds')}"
    flash = f"{memory.flash_int8:,} bytes of weights in int8"
    ram = f"{memory.ram_int8:,} bytes of activations in int8 at {memory.peak}"
    items: list[tuple[str, int | None, int | None, Callable[[int, int], bool], str]] = [
        ("max-params", budget.max_params, totals.parameters, operator.lt, fewer),
        ("min-rf", budget.min_rf, _smaller_side(final), operator.gt, at_output),
        ("min-rf-features", budget.min_rf_features, _smaller_side(features), operator.gt, at_map),
        ("max-mult-adds", budget.max_mult_adds, totals.mult_adds, operator.le, most),
        ("max-flash", budget.max_flash, memory.flash_int8, operator.le, flash),
        ("max-ram", budget.max_ram, memory.ram_int8, operator.le, ram),
    ]
    for name in dict.fromkeys(budget.require):
        count, detail = structures[name]
        items.append((f"require:{name}", 1, count, operator.ge, detail))
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
        features=features,
        final=final,
    )


def _smaller_side(field: Features | Final | None) -> int | None:
    return None if field is None else min(field.receptive_field)


def _size(field: Features | Final) -> str:
    return "×".join(map(str, field.receptive_field))


def _most(rows: Sequence[SummaryLayer], attribute: str) -> str:
    """Return the name of the row whose attribute is largest."""
    return max(rows, key=lambda row: getattr(row, attribute)).name if rows else "no layer"
