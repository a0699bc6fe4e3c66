"""The rows of a network's table: what each module puts out, holds and does."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torchinfo
from torch import Tensor, nn
from torchinfo import ModelStatistics
from torchinfo.layer_info import LayerInfo
from torchinfo.torchinfo import clear_cached_forward_pass

from cifar_cnn.analysis.network import run_network
from cifar_cnn.analysis.run import Run
from cifar_cnn.analysis.steps import Value
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


def run_with_rows(
    model: nn.Module, input_size: tuple[int, int], vouched: Collection[str]
) -> tuple[Run, Value, list[SummaryRow]]:
    """Run a network once; return the run, its output, and its rows as `summarize` orders them.

    Raises:
        ModelError: as `run_network`, or a module returns what no table can show.
    """
    tables: list[ModelStatistics] = []

    def forward(image: Tensor) -> None:
        try:
            tables.append(
                torchinfo.summary(
                    model, input_data=[image], device=image.device, mode="eval", verbose=0
                )
            )
        except RuntimeError as error:
            cause = error.__cause__ or error
            if "Model contains a layer" in str(cause):
                raise ModelError(
                    f"the table of layers cannot be made: {one_line(cause)}"
                ) from error
            raise cause from None
        finally:
            clear_cached_forward_pass()  # which would hold the network and its weights

    run, output = run_network(model, input_size, vouched, is_strict=False, forward=forward)
    return run, output, _rows(model, tables[0].summary_list, run.calls.mult_adds)


def _rows(
    model: nn.Module, infos: list[LayerInfo], mult_adds: Mapping[nn.Module, list[int]]
) -> list[SummaryRow]:
    names = {module: name for name, module in nn.Module.named_modules(model)}
    left = {module: list(counts) for module, counts in mult_adds.items()}
    counted: set[int] = set()
    rows = []
    for info in (info for info in _by_end_of_forward(infos) if info.executed):
        module = info.module
        own = left[module].pop(0) if left.get(module) else 0
        if module is model:  # and what ran in modules that the table leaves out: parametrisations
            own += sum(sum(counts) for counts in left.values())
        fresh = {id(p): p.numel() for _, p in nn.Module.named_parameters(module, recurse=False)}
        parameters = sum(count for key, count in fresh.items() if key not in counted)
        counted.update(fresh)
        is_row = not isinstance(module, CONTAINERS) and module is not model
        if is_row or parameters or own:
            name = names.get(module) or type_name(module)
            output_size = tuple(info.output_size[1:])
            rows.append(SummaryRow(name, type_name(module), output_size, parameters, own))
    return rows + _unused_rows(model, counted)


def _unused_rows(model: nn.Module, counted: set[int]) -> list[SummaryRow]:
    """Return rows for what holds parameters and did not run, at least not as a module."""
    rows = []
    for name, module in nn.Module.named_modules(model):
        fresh = {id(p): p.numel() for _, p in nn.Module.named_parameters(module, recurse=False)}
        parameters = sum(count for key, count in fresh.items() if key not in counted)
        counted.update(fresh)
        if parameters:
            rows.append(SummaryRow(name, type_name(module), (), parameters, 0))
    return rows


def _by_end_of_forward(infos: list[LayerInfo]) -> list[LayerInfo]:
    """Put torchinfo's rows, in which a module comes before its children, behind them."""
    ended: list[LayerInfo] = []
    at_work: list[LayerInfo] = []
    for info in infos:
        while at_work and at_work[-1].depth >= info.depth:
            ended.append(at_work.pop())
        at_work.append(info)
    return ended + at_work[::-1]
