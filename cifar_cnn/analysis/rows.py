"""The rows of a network's table: what each module puts out, holds and does."""

import torch
from torch import nn

from cifar_cnn.analysis.results import SummaryLayer
from cifar_cnn.analysis.run import Run
from cifar_cnn.models.layers import type_name

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
UNLISTED = (nn.ModuleList, nn.ParameterList, torch.jit.ScriptModule)
"""Modules that run inside of others, as parametrizations do: what they compute counts there."""


def rows_of(model: nn.Module, run: Run) -> list[SummaryLayer]:
    """Return the rows of a network that has run, as `summarize` orders them."""
    names = {module: name for name, module in nn.Module.named_modules(model)}
    unlisted = sum(each.mult_adds for each in run.calls.ended if isinstance(each.module, UNLISTED))
    counted: set[int] = set()
    rows = []
    for module, size, mult_adds in run.calls.ended:
        if isinstance(module, UNLISTED):
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
