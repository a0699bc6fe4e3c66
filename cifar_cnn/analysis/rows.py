"""The rows of a network's table: what each module puts out, holds and does."""

from collections.abc import Iterator
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
from torchinfo.torchinfo import clear_cached_forward_pass

from cifar_cnn.analysis.trace import fake_image
from cifar_cnn.documents import analysis as documents
from cifar_cnn.errors import ModelError, one_line
from cifar_cnn.models.layers import type_name

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

    def as_dict(self) -> documents.SummaryLayer:
        """Return it as in `summarize --json`."""
        return {
            "name": self.name,
            "type": self.type,
            "output_size": list(self.output_size),
            "parameters": self.parameters,
            "mult_adds": self.mult_adds,
        }


def find_rows(model: nn.Module, input_size: tuple[int, int]) -> list[SummaryRow]:
    """Return the rows of a network for an image of `input_size` (H, W), as `summarize` orders them.

    Raises:
        ModelError: a module, of a network that can take the image, returns what no table can show.
    """
    with fake_image(model, input_size) as image, _counting_flops() as flops, _with_gradient(model):
        try:
            table = torchinfo.summary(
                model, input_data=[image], device=image.device, mode="eval", verbose=0
            )
        except RuntimeError as error:
            reason = one_line(error.__cause__ or error)
            raise ModelError(f"the table of layers cannot be made: {reason}") from error
        finally:
            clear_cached_forward_pass()  # which would hold the network and its weights
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
