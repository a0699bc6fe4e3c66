"""What a network is made of: its layers with their outputs, parameters and mult-adds; its sizes."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.operations import OPERATIONS
from cifar_cnn.analysis.propagate import propagate
from cifar_cnn.analysis.receptive_field import ReceptiveField, analyze
from cifar_cnn.analysis.rows import SummaryRow, find_rows
from cifar_cnn.analysis.structure import find_structures
from cifar_cnn.analysis.trace import Model, follow
from cifar_cnn.analysis.verdict import Verdict, judge
from cifar_cnn.documents import analysis as documents

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
        return {
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
    known = None if budget is None else {*OPERATIONS, *assume_pointwise}
    name, module, graph = follow(model, input_size, known, model_arg)
    rows = find_rows(module, input_size)
    parameters = sum(p.numel() for p in module.parameters())
    field = verdict = None
    if budget is not None:
        propagated = propagate(graph, assume_pointwise)
        field = analyze(name, graph, propagated, budget.min_rf)
        verdict = judge(budget, rows, parameters, field, find_structures(graph, propagated))
    return Summary(
        model=name,
        input_size=input_size,
        rows=tuple(rows),
        parameters=parameters,
        trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
        mult_adds=sum(row.mult_adds for row in rows),
        receptive_field=field,
        budget=verdict,
    )
