"""The proof of a table of fields by the network itself, as it is.

Each image of a batch has one row of pixels set to NaN, another in each. NaN spreads to exactly
those units that read the row, so that every unit of every operation can be held against the
fields of the same run: no unit may turn NaN by a row outside of its field, and those that see no
border must by its first row and by its last. The same is done for columns.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cifar_cnn.analysis.calls import Call
from cifar_cnn.analysis.field import FAR, IntArray, span
from cifar_cnn.analysis.layers import Layer, layers_of
from cifar_cnn.analysis.misalignment import AXIS_NAMES
from cifar_cnn.analysis.network import Model, evaluating, open_model, random_image, run_network
from cifar_cnn.analysis.rules import NORMALIZATIONS, RESAMPLINGS, Kind
from cifar_cnn.analysis.run import Run, Step
from cifar_cnn.analysis.source import is_ours, raised_at
from cifar_cnn.documents import analysis as documents
from cifar_cnn.errors import ModelError, UserError, one_line
from cifar_cnn.runtime import global_state_kept

Size = tuple[int, int]
Progress = Callable[[int, int], None]
"""Told how many operations are proved, and of how many."""
ROOM = 8
"""Units of the coarsest map that a canvas has room for beyond the largest field."""
MOST_PIXELS = 1 << 21
"""Of all images of an axis: where fields take more, they are shown on the image's own size."""
BATCH_PIXELS = 1 << 19
"""Of the images that run together."""
LOSING = {"topk", "max_unpool1d", "max_unpool2d", "max_unpool3d"}
"""Operations whose outputs turn NaN in fewer places than they read."""


@dataclass
class Shown:
    """What NaN has shown of a layer along one axis.

    Args:
        units: how many were compared.
        ends: which ends of its fields, low and high, were reached as they must.
        lost: why NaN does not get here, if it does not.
        wrong: number, field and reached pixels of a unit that is not what the table says.
        unit: first and last pixel of a unit whose field is whole, and the pixels that it reads.
    """

    units: int = 0
    ends: set[str] = field(default_factory=set)
    lost: str | None = None
    wrong: tuple[int, Size, Size] | None = None
    unit: Size | None = None
    read: set[int] = field(default_factory=set)

    def add(self, other: "Shown") -> None:
        """Add what other images have shown."""
        self.units = max(self.units, other.units)
        self.ends |= other.ends
        self.lost = self.lost or other.lost
        self.wrong = self.wrong or other.wrong
        if self.unit in {None, other.unit}:
            self.unit, self.read = other.unit, self.read | other.read


@dataclass
class Verification:
    """The outcome of the proof: what was shown of each layer along each axis.

    Args:
        canvases: (H, W) of the images on which rows, and of those on which columns were NaN.
        shown: by layer and axis, in the order of the network.
    """

    canvases: list[Size] = field(default_factory=list)
    shown: dict[tuple[str, str], Shown] = field(default_factory=dict)

    @property
    def agreed(self) -> bool:
        """Whether every unit compared agrees, and any was."""
        return self.units > 0 and self.first_disagreement is None

    @property
    def units(self) -> int:
        """How many units were compared."""
        return sum(shown.units for shown in self.shown.values() if shown.lost is None)

    @property
    def layers(self) -> list[str]:
        """Layers that were compared along any axis."""
        return self._layers(lambda shown: shown.units > 0 and shown.lost is None)

    @property
    def clipped(self) -> list[str]:
        """Layers whose fields reach beyond the images, and are shown as far as these go."""
        return self._layers(lambda shown: shown.lost is None and len(shown.ends) < 2)

    @property
    def not_shown(self) -> dict[str, str]:
        """Layers that NaN does not reach, with the reason."""
        return {layer: shown.lost for (layer, _), shown in self.shown.items() if shown.lost}

    @property
    def first_disagreement(self) -> documents.WrongUnit | None:
        """The first unit whose field is wrong."""
        for (layer, axis), shown in self.shown.items():
            if shown.wrong is not None:
                number, analytic, reached = shown.wrong
                return {
                    "layer": layer,
                    "axis": axis,
                    "unit": number,
                    "analytic": list(analytic),
                    "reached": list(reached),
                }
        return None

    @property
    def gridding(self) -> list[documents.Gridding]:
        """Fields with holes."""
        found: list[documents.Gridding] = []
        for (layer, axis), shown in self.shown.items():
            if shown.unit is not None and shown.lost is None:
                total, read = shown.unit[1] - shown.unit[0] + 1, len(shown.read)
                if read < total:
                    found.append(
                        {"layer": layer, "axis": axis, "contributing": read, "total": total}
                    )
        return found

    def as_dict(self) -> documents.Verification:
        """Return it as in `receptive-field --verify --json`."""
        return {
            "agreed": self.agreed,
            "layers": len(self.layers),
            "units": self.units,
            "canvases": [list(canvas) for canvas in self.canvases],
            "clipped": self.clipped,
            "not_shown": [{"layer": k, "reason": reason} for k, reason in self.not_shown.items()],
            "first_disagreement": self.first_disagreement,
            "gridding": self.gridding,
        }

    def _layers(self, is_meant: Callable[[Shown], bool]) -> list[str]:
        return list(dict.fromkeys(name for (name, _), s in self.shown.items() if is_meant(s)))


@dataclass(frozen=True)
class Canvas:
    """The size of the images of a proof, and which of their rows (or columns) are set to NaN."""

    size: Size
    axis: int
    rows: IntArray
    batch_size: int

    @property
    def is_complete(self) -> bool:
        """Whether every row is."""
        return len(self.rows) == self.size[self.axis]


@global_state_kept()
def verify(
    model: Model,
    input_size: Size = (32, 32),
    *,
    model_arg: Sequence[str] = (),
    assume_pointwise: Collection[str] = (),
    progress: Progress = lambda done, total: None,
) -> Verification:
    """Hold the receptive field of every operation against what turns NaN in the network.

    Args:
        model: as for `receptive_field`.
        input_size: (H, W) in pixels; where the network takes other sizes, the proof runs on images
            that are long enough to show every field whole.
        model_arg: as for `receptive_field`.
        assume_pointwise: as for `receptive_field`.
        progress: called as the proof goes on.

    Raises:
        ModelError: as for `receptive_field`.
        UserError: the network cannot run on NaN, or this machine's kernels spread it.
    """
    _check_kernels()
    _, module = open_model(model, model_arg)
    run, _ = run_network(module, input_size, assume_pointwise)
    maps = [row for row in layers_of(run) if row.is_map]
    result, count = Verification(), len(run.steps)
    for axis in (0, 1):
        canvases = list(_canvases(maps, input_size, axis))
        for canvas in canvases:
            batches = np.array_split(canvas.rows, -(-len(canvas.rows) // canvas.batch_size))
            try:
                for done, rows in enumerate(batches, start=1):
                    prove(module, rows, canvas, assume_pointwise, result)
                    progress(count * axis + count * done // len(batches), 2 * count)
            except UserError:
                if canvas is canvases[-1]:
                    raise
            else:
                result.canvases.append(canvas.size)
                break
    return result


def prove(
    module: nn.Module,
    rows: IntArray,
    canvas: Canvas,
    vouched: Collection[str],
    result: Verification,
) -> None:
    """Run the network on one image for each of `rows`, that row NaN; note what is shown.

    Raises:
        UserError: the network cannot run on them.
    """
    with evaluating(module):
        images = random_image(module, canvas.size).repeat(len(rows), 1, 1, 1)
        for image, row in zip(images, rows.tolist(), strict=True):
            image.select(1 + canvas.axis, row).fill_(torch.nan)
        proof = Proof(module, images, rows, canvas, vouched)
        try:
            with proof.running():
                module(images)
        except ModelError:
            raise
        except Exception as error:  # the user's forward may raise anything
            if is_ours(error.__traceback__):
                raise
            where = f"in {proof.calls.module_name() or 'its forward'}"
            raise UserError(
                f"the proof sets pixels to NaN, and the network cannot run on them: "
                f"{type(error).__name__} {where} ({raised_at(error.__traceback__)}): "
                f"{one_line(error)}"
            ) from error
        finally:
            axis = AXIS_NAMES[canvas.axis]
            for call, shown in proof.shown.items():
                if call.name:
                    result.shown.setdefault((call.name, axis), Shown()).add(shown)


class Proof(Run):  # type: ignore[no-untyped-call]
    """Compares what turns NaN with the fields, operation by operation.

    Args:
        model: the network.
        images: (N, 3, H, W).
        rows: of each image, which row (or column) is NaN.
        canvas: how they were chosen.
        vouched: operations that are element-wise by the user's word.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        rows: IntArray,
        canvas: Canvas,
        vouched: Collection[str],
    ) -> None:
        super().__init__(model, images, vouched, dims=(2 + canvas.axis, 0))
        self.shown: dict[Call, Shown] = {}
        self._rows, self._canvas, self._jump = rows, canvas, 1
        self._lost: dict[int, tuple[Tensor, str]] = {}

    def execute(self, op: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation; statistics and taps of weight 0 do not spread NaN."""
        is_norm = op in NORMALIZATIONS
        if not is_norm and op not in RESAMPLINGS:
            return func(*args, **kwargs)
        nan = args[0].isnan()
        result = func(args[0].nan_to_num(), *args[1:], **kwargs)
        mask = nan if is_norm else func(nan.to(args[0].dtype), *args[1:], **kwargs) != 0
        (result[0] if is_norm else result).masked_fill_(mask, torch.nan)
        return result

    def whole_function(self, name: str, func: Any, args: Any) -> Any:
        """Run a function; pads that wrap around count as outside of the image, as all do."""
        return super().whole_function(name, func, args[:2] if name == "pad" else args)

    def look_at(self, step: Step, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Compare the units of an operation's first output."""
        memories = [t.untyped_storage()._cdata for t in inputs]  # noqa: SLF001
        lost = next((self._lost[memory][1] for memory in memories if memory in self._lost), None)
        is_float = outputs[0].is_floating_point()
        if not is_float:
            lost = lost or f"{step.call.function} gives no numbers that can be NaN"
        elif step.op in LOSING:
            lost = lost or f"NaN does not follow {step.call.function}"
        shown = self.shown[step.call] = Shown(lost=lost)
        if is_float and outputs[0].numel() and all(step.field.axes):
            self._compare(step, outputs[0], shown)
        if shown.lost is not None:
            for output in outputs:
                memory = output.untyped_storage()._cdata  # noqa: SLF001
                self._lost[memory] = output.detach(), shown.lost

    def _compare(self, step: Step, output: Tensor, shown: Shown) -> None:
        low, high = span(step.field.axes[0], step.field.shape)
        image, last_image = span(step.field.axes[1], step.field.shape)
        if (image < last_image).any():
            shown.lost = shown.lost or "it mixes the images of a batch"
            return
        same = tuple(d for d in range(low.ndim) if low.shape[d] == 1 == image.shape[d])
        nan = output.isnan().any(same, keepdim=True) if same else output.isnan()
        reached = nan.cpu().numpy()
        pixel = self._rows[np.where(image <= last_image, image, 0)]
        is_end = (pixel == low) | (pixel == high)
        whole = self._sees_no_border(step, low, high)
        images = tuple(d for d in range(image.ndim) if (image.min(d) < last_image.max(d)).any())
        seen = whole & reached.any(images, keepdims=True)  # not, where the other axis sees nothing
        beyond = reached & ((pixel < low) | (high < pixel))
        missing = seen & ~reached & is_end
        shown.units = low.size
        if step.kind == Kind.POINTWISE and missing.any() and not beyond.any():
            shown.lost = shown.lost or f"{step.call.function} gives numbers for NaN"
        if not reached.any():
            shown.lost = shown.lost or "no pixel has a part in it"
        for bad in (beyond, missing)[: 1 if shown.lost else 2]:
            shown.wrong = shown.wrong or _wrong_unit(bad, low, high, pixel, reached)
        for name, end in (("low", low), ("high", high)):
            at = seen & (pixel == end)
            if at.any() and not (at & ~reached).any():
                shown.ends.add(name)
        if whole.any() and self._canvas.is_complete:
            arrays = (low, high, pixel, np.where(whole, abs(low + high - self._length), FAR))
            lows, highs, pixels, off = (np.broadcast_to(each, reached.shape) for each in arrays)
            chosen = np.unravel_index(off.argmin(), off.shape)
            shown.unit = int(lows[chosen]), int(highs[chosen])
            mine = reached & (lows == shown.unit[0]) & (highs == shown.unit[1])
            shown.read = set(pixels[mine].tolist())

    @property
    def _length(self) -> int:
        return self._canvas.size[self._canvas.axis]

    def _sees_no_border(self, step: Step, low: IntArray, high: IntArray) -> NDArray[np.bool_]:
        """Return which units see no border, neither the image's nor that of a cropped map."""
        slopes = [abs(family.slope) for family in step.field.axes[0] if family.dim is not None]
        self._jump = max([self._jump, *(ceil(slope) for slope in slopes)])
        margin = np.full_like(low, 2 * self._jump)
        if self._canvas.is_complete:  # those of the middle half
            margin = np.maximum(margin, (self._length - (high - low)) // 4)
        whole: NDArray[np.bool_] = (low >= margin) & (high < self._length - margin) & (low <= high)
        return whole


def _wrong_unit(
    bad: NDArray[np.bool_],
    low: IntArray,
    high: IntArray,
    pixel: IntArray,
    reached: NDArray[np.bool_],
) -> tuple[int, Size, Size] | None:
    """Return the number of the first unit that is wrong, its field, and what it reads.

    Where places are flattened, units of one field differ along the other axis, and count together.
    """
    lows, highs, pixels = (np.broadcast_to(each, bad.shape) for each in (low, high, pixel))
    for first in map(tuple, np.argwhere(bad)):
        field = int(lows[first]), int(highs[first])
        read = pixels[reached & (lows == field[0]) & (highs == field[1])]
        if read.size and ((read.min(), read.max()) != field or reached[first]):
            dim = next((d for d, size in enumerate(low.shape) if size > 1), 0)
            return int(first[dim]), field, (int(read.min()), int(read.max()))
    return None


def _canvases(maps: Sequence[Layer], size: Size, axis: int) -> Iterator[Canvas]:
    """Yield what to prove the fields on, the best first.

    On images that show every field whole, two runs of rows are enough, each as long as the largest
    step from unit to unit: for each layer some unit begins in the first, and some unit ends in the
    last.
    """
    jump = max([1, *(ceil(abs(float(row.walks[axis].jump or 1))) for row in maps)])
    largest = max((row.walks[axis].size for row in maps), default=1)
    length = -(-(largest + ROOM * jump) // jump) * jump
    rows = np.arange(length)
    if length * length * size[1 - axis] > MOST_PIXELS:
        rows = np.r_[3 * jump : 4 * jump, length - 4 * jump : length - 3 * jump]
    if length > size[axis] and len(rows) * length * size[1 - axis] <= MOST_PIXELS:
        long = (length, size[1]) if axis == 0 else (size[0], length)
        yield Canvas(long, axis, rows, max(BATCH_PIXELS // prod(long), 1))
    every = np.arange(size[axis])
    yield Canvas(size, axis, every, max(BATCH_PIXELS // prod(size), 1))
    yield Canvas(size, axis, every, 1)


def _check_kernels() -> None:
    """Refuse a machine whose convolutions spread NaN to other images of a batch."""
    images = torch.zeros(4, 8, 8, 8)
    images[1, :, 3] = torch.nan
    for kernel in (1, 3):
        nan = F.conv2d(images, torch.ones(8, 8, kernel, kernel), padding=kernel // 2).isnan()
        if nan[[0, 2, 3]].any() or nan[1].any(2).any(0).sum() != kernel:
            raise UserError(
                "this machine's convolutions spread NaN to pixels that they do not read: "
                "--verify cannot prove anything here"
            )
