"""What a network is made of: its layers with their outputs, parameters and mult-adds; its sizes."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.network import Model, open_model, run_network
from cifar_cnn.analysis.receptive_field import ReceptiveField, analyze
from cifar_cnn.analysis.rows import SummaryRow, rows_of
from cifar_cnn.analysis.structures import candidates, find_structures
from cifar_cnn.analysis.verdict import Verdict, first_few, judge
from cifar_cnn.analysis.weights import OUTSIDE, unregistered, without_effect
from cifar_cnn.documents import analysis as documents
from cifar_cnn.errors import ModelError
from cifar_cnn.models.module import parameters_of

MEBIBYTE = 1 << 20
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Summary:
    """The table of a network; with a budget, its receptive fields and the verdict too."""

    model: str
    input_size: tuple[int, int]
    rows: tuple[SummaryRow, ...]
    parameters: int
    trainable: int
    mult_adds: int
    receptive_field: ReceptiveField | None
    budget: Verdict | None
    warnings: tuple[str, ...] = ()

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

    def as_dict(self) -> documents.Summary:
        """Return the document that `summary --json` prints."""
        document: documents.Summary = {
            "model": self.model,
            "input_size": [3, *self.input_size],
            "layers": [row.as_dict() for row in self.rows],
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
        if self.warnings:
            document["warnings"] = list(self.warnings)
        return document


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
    name, module = open_model(model, model_arg)
    run, output = run_network(module, input_size, assume_pointwise, is_strict=False)
    rows = rows_of(module, run)
    _check_answers(output.field.shape)
    parameters = sum(p.numel() for p in parameters_of(module))
    outside = unregistered(module, run.unregistered)
    warnings = [OUTSIDE.format(", ".join(outside))] if outside else []
    field = verdict = None
    if budget is not None:
        effect = without_effect(module, input_size, candidates(run))
        if effect.parameters:
            warnings.append(f"no effect on the output: {first_few(effect.parameters)} (gradient 0)")
        field = None if run.unknown else analyze(name, run, output, budget.min_rf)
        structures = find_structures(run, output, effect.calls)
        verdict = judge(budget, rows, parameters, field or run.unknown, structures, outside)
    return Summary(
        model=name,
        input_size=input_size,
        rows=tuple(rows),
        parameters=parameters,
        trainable=sum(p.numel() for p in parameters_of(module) if p.requires_grad),
        mult_adds=sum(row.mult_adds for row in rows),
        receptive_field=field,
        budget=verdict,
        warnings=tuple(warnings),
    )


def _check_answers(shape: tuple[int, ...]) -> None:
    """Refuse a network that takes places for images; the answer to one image may lack the batch."""
    if len(shape) > 1 and shape[0] != 1:
        raise ModelError(
            f"one image gives {shape[0]} answers, of shape {tuple(shape[1:])}: a view or reshape "
            "of the network takes places for images; keep the batch first, as x.flatten(1) does"
        )
