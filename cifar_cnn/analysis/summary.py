"""What a network is made of: its layers with their outputs, parameters and mult-adds; its sizes."""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torchinfo
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils.flop_counter import FlopCounterMode
from torchinfo.layer_info import LayerInfo

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.operations import OPERATIONS
from cifar_cnn.analysis.propagate import propagate
from cifar_cnn.analysis.receptive_field import analyze
from cifar_cnn.analysis.structure import find_structures
from cifar_cnn.analysis.trace import Model, fake_image, follow
from cifar_cnn.analysis.verdict import Measured, Verdict, judge
from cifar_cnn.models.layers import type_name

MEBIBYTE = 1 << 20
FLOAT32_BYTES = 4
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class SummaryRow:
    """A module: its output for one image, without the batch, and what it itself holds and does.

    The output's size is () where the module holds parameters, but did not run as a module.
    """

    name: str
    type: str
    output_size: tuple[int, ...]
    parameters: int
    mult_adds: int


@dataclass(frozen=True)
class Summary:
    """The table of a network and, if asked for, the verdict on its budget."""

    model: str
    input_size: tuple[int, int]
    rows: tuple[SummaryRow, ...]
    parameters: int
    trainable: int
    mult_adds: int
    budget: Verdict | None

    @property
    def input_mb(self) -> float:
        """MiB of one float32 image."""
        return 3 * math.prod(self.input_size) * FLOAT32_BYTES / MEBIBYTE

    @property
    def forward_backward_mb(self) -> float:
        """MiB of every row's float32 output, and as much again for its gradient."""
        elements = sum(math.prod(row.output_size) for row in self.rows if row.output_size)
        return 2 * elements * FLOAT32_BYTES / MEBIBYTE

    @property
    def parameters_mb(self) -> float:
        """MiB of the parameters as float32."""
        return self.parameters * FLOAT32_BYTES / MEBIBYTE

    @property
    def total_mb(self) -> float:
        """MiB of the three together."""
        return self.input_mb + self.forward_backward_mb + self.parameters_mb

    def as_dict(self) -> dict[str, Any]:
        """Return the document that `summary --json` prints."""
        return {
            "model": self.model,
            "input_size": [3, *self.input_size],
            "layers": [{**vars(row), "output_size": list(row.output_size)} for row in self.rows],
            "totals": {
                "parameters": self.parameters,
                "trainable": self.trainable,
                "non_trainable": self.parameters - self.trainable,
                "mult_adds": self.mult_adds,
                "input_mb": self.input_mb,
                "forward_backward_mb": self.forward_backward_mb,
                "parameters_mb": self.parameters_mb,
                "total_mb": self.total_mb,
            },
            "budget": self.budget.as_dict() if self.budget else None,
        }


def summarize(
    model: Model,
    input_size: tuple[int, int] = (32, 32),
    *,
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
        budget: what to hold it against; without one there is no verdict.
        assume_pointwise: as for `receptive_field`.

    Raises:
        ModelError: the network cannot be built, run or followed.
    """
    known = None if budget is None else {*OPERATIONS, *assume_pointwise}
    name, module, graph = follow(model, input_size, known)
    rows = _rows(module, input_size)
    parameters = sum(p.numel() for p in module.parameters())
    verdict = None
    if budget is not None:
        propagated = propagate(graph, assume_pointwise)
        measured = Measured(
            parameters=parameters,
            largest_layer=_most(rows, lambda row: row.parameters),
            mult_adds=sum(row.mult_adds for row in rows),
            busiest_layer=_most(rows, lambda row: row.mult_adds),
            receptive_field=analyze(name, graph, propagated, budget.min_rf),
            structures=find_structures(graph, propagated),
        )
        verdict = judge(budget, measured)
    return Summary(
        model=name,
        input_size=input_size,
        rows=tuple(rows),
        parameters=parameters,
        trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
        mult_adds=sum(row.mult_adds for row in rows),
        budget=verdict,
    )


def _rows(model: nn.Module, input_size: tuple[int, int]) -> list[SummaryRow]:
    with fake_image(model, input_size) as image, _counting_flops() as flops, _with_gradient(model):
        table = torchinfo.summary(
            model, input_data=[image], device=image.device, mode="eval", verbose=0
        )
    names = {module: name for name, module in model.named_modules()}
    counted: set[int] = set()
    rows = []
    infos = [info for info in _by_end_of_forward(table.summary_list) if info.executed]
    for info in infos:
        module = info.module
        calls = flops.get(module)
        own_flops = calls.pop(0) if calls else 0
        if module is model:  # and what ran in modules that the table leaves out: parametrisations
            own_flops += sum(sum(left) for left in flops.values())
        fresh = {id(p): p.numel() for p in module.parameters(recurse=False)}
        parameters = sum(count for key, count in fresh.items() if key not in counted)
        counted.update(fresh)
        is_row = not isinstance(module, CONTAINERS) and module is not model
        if is_row or parameters or own_flops:
            rows.append(
                SummaryRow(
                    name=names.get(module) or type_name(module),
                    type=type_name(module),
                    output_size=tuple(info.output_size[1:]),
                    parameters=parameters,
                    mult_adds=own_flops // 2,
                )
            )
    return rows + _unused_rows(model, counted)


def _unused_rows(model: nn.Module, counted: set[int]) -> list[SummaryRow]:
    """Return rows for what holds parameters and did not run, at least not as a module."""
    rows = []
    for name, module in model.named_modules():
        fresh = {id(p): p.numel() for p in module.parameters(recurse=False)}
        parameters = sum(count for key, count in fresh.items() if key not in counted)
        counted.update(fresh)
        if parameters:
            rows.append(SummaryRow(name, type_name(module), (), parameters, 0))
    return rows


@contextmanager
def _with_gradient(model: nn.Module) -> Iterator[None]:
    """Let the network hook onto its gradient, which torchinfo switches off."""

    def enable(*_: Any) -> None:
        torch.set_grad_enabled(True)

    hook = model.register_forward_pre_hook(enable, prepend=True)
    try:
        yield
    finally:
        hook.remove()


class _NoModules:
    """In place of the flop counter's list of modules, which asks some tensors for a gradient."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _most(rows: list[SummaryRow], count: Callable[[SummaryRow], int]) -> str:
    return max(rows, key=count).name if rows else "no layer"


@contextmanager
def _counting_flops() -> Iterator[dict[nn.Module, list[int]]]:
    """Note each module's own flops, call by call; torch counts a mult-add as 2."""
    own: dict[nn.Module, list[int]] = {}
    inside = [0]  # flops of the children of each module at work
    begun: list[int] = []
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter:

        def enter(_: nn.Module, __: Any) -> None:
            begun.append(counter.get_total_flops())
            inside.append(0)

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            total = counter.get_total_flops() - begun.pop()
            own.setdefault(module, []).append(total - inside.pop())
            inside[-1] += total

        hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
        try:
            yield own
        finally:
            for hook in hooks:
                hook.remove()


def _by_end_of_forward(infos: list[LayerInfo]) -> list[LayerInfo]:
    """Put torchinfo's rows, in which a module comes before its children, behind them."""
    ended: list[LayerInfo] = []
    at_work: list[LayerInfo] = []
    for info in infos:
        while at_work and at_work[-1].depth >= info.depth:
            ended.append(at_work.pop())
        at_work.append(info)
    return ended + at_work[::-1]
