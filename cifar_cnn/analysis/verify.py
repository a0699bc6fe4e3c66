"""A numeric proof of the receptive field: what the gradient of single units reaches.

The network runs in its additive form (see `additive`) on a strip: long enough along one axis that
units in the middle see no border, only as high as the network needs along the other. The fields
are computed for the same strip, and every operation is held against its gradient (see
`unit_proof`).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from cifar_cnn.analysis.additive import run_additive
from cifar_cnn.analysis.layers import Layer, describe
from cifar_cnn.analysis.operations import OPERATIONS
from cifar_cnn.analysis.propagate import Propagated, propagate
from cifar_cnn.analysis.trace import Model, follow, trace
from cifar_cnn.analysis.unit_proof import Checked, Progress, Proof
from cifar_cnn.documents import analysis as documents

Size = tuple[int, int]
ROOM = 8
"""Units of the coarsest map that a strip has room for beyond the largest field."""


@dataclass(frozen=True)
class Verification:
    """The outcome of the proof; `skipped` layers see everything there is, or nothing at all."""

    checked: tuple[Checked, ...]
    skipped: tuple[str, ...]
    strips: tuple[Size, Size]

    @property
    def first_disagreement(self) -> Checked | None:
        """The first unit whose field is not what the gradient shows."""
        return next((unit for unit in self.checked if not unit.agrees), None)

    @property
    def agreed(self) -> bool:
        """Whether every unit checked agrees, and any was."""
        return bool(self.checked) and self.first_disagreement is None

    @property
    def gridded(self) -> tuple[Checked, ...]:
        """The last unit of each layer and axis whose field has holes."""
        last = {(unit.layer, unit.axis): unit for unit in self.checked}
        return tuple(unit for unit in last.values() if unit.contributing < unit.total)

    def as_dict(self) -> documents.Verification:
        """Return it as in `receptive-field --verify --json`."""
        wrong = self.first_disagreement
        return {
            "agreed": self.agreed,
            "layers": len({unit.layer for unit in self.checked}),
            "units": len(self.checked),
            "skipped": list(self.skipped),
            "strips": [list(strip) for strip in self.strips],
            "first_disagreement": wrong.as_dict() if wrong else None,
            "gridding": [
                {
                    "layer": unit.layer,
                    "axis": unit.axis,
                    "contributing": unit.contributing,
                    "total": unit.total,
                }
                for unit in self.gridded
            ],
        }


def verify(
    model: Model,
    input_size: Size = (32, 32),
    *,
    model_arg: Sequence[str] = (),
    assume_pointwise: Collection[str] = (),
    progress: Progress = lambda done, total: None,
) -> Verification:
    """Compare the receptive field of every layer with the gradient of single units.

    Args:
        model: as for `receptive_field`.
        input_size: (H, W) in pixels; the proof runs on strips of its own, if the network lets it.
        model_arg: as for `receptive_field`.
        assume_pointwise: as for `receptive_field`; the proof takes the user's word too.
        progress: called as the proof goes on.

    Raises:
        ModelError: as for `receptive_field`.
    """
    known = {*OPERATIONS, *assume_pointwise}
    _, module, graph = follow(model, input_size, known, model_arg)
    original = propagate(graph, assume_pointwise)
    checked: list[Checked] = []
    strips = []
    for axis in (0, 1):
        for strip in _strips(module, original, input_size, axis, known):
            graph, ran = run_additive(module, strip, known, assume_pointwise)
            units = Proof(graph, ran, propagate(graph, assume_pointwise), axis).check(progress)
            if all(unit.agrees for unit in units):
                break
        checked += units
        strips.append(strip)
    seen = {unit.layer for unit in checked}
    layers = dict.fromkeys(step.operation.name for step in original.steps)
    skipped = tuple(name for name in layers if name not in seen)
    return Verification(tuple(checked), skipped, (strips[0], strips[1]))


def _strips(
    module: nn.Module, original: Propagated, size: Size, axis: int, known: Collection[str]
) -> Iterator[Size]:
    """Give the strips on which the network has all of its maps, narrow ones first.

    On a strip narrower than a window all of the window may lie in the padding; a wider one then
    tells whether that is why a unit reaches less. A network that takes nothing but its own size is
    given that.
    """
    rows = [row for row in map(describe, original.steps) if row.is_map]
    across = 1 - axis
    long = _length(rows, axis, size[axis])
    jump = _largest_jump(rows, across)
    narrow = {1, *(jump * times for times in (1, 2, 3, 4, 6))}
    takes_other_sizes = False
    for width in sorted({w for w in narrow if w < size[across]} | {size[across]}):
        strip = (long, width) if axis == 0 else (width, long)
        graph = trace(module, strip, known, partial=True)
        if sum(describe(step).is_map for step in propagate(graph).steps) == len(rows):
            takes_other_sizes = True
            yield strip
    if not takes_other_sizes:
        yield size


def _length(rows: list[Layer], axis: int, least: int) -> int:
    """Return a length that leaves room for a few units that see no border."""
    jump = _largest_jump(rows, axis)
    room = max((row.walks[axis].size for row in rows), default=1) + ROOM * jump
    return max(-(-room // jump) * jump, least)


def _largest_jump(rows: list[Layer], axis: int) -> int:
    return max((abs(int(row.walks[axis].jump or 1)) for row in rows), default=1) or 1
