"""The proof of a table of fields by the network itself, as it is.

Each image of a batch has one row of pixels set to NaN, another in each. NaN spreads to exactly
those units that read the row, so that every unit of every operation can be held against the
fields of the same run: no unit may turn NaN by a row outside of its field, and those that see no
border must by its first row and by its last. The same is done for columns.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
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
from cifar_cnn.analysis.source import is_ours, place_of_error
from cifar_cnn.documents import analysis as documents
from cifar_cnn.errors import UserError, one_line
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
        read: how many pixels a unit reads whose field is whole, and how many its field holds.
    """

    units: int = 0
    ends: set[str] = field(default_factory=set)
    lost: str | None = None
    wrong: tuple[int, Size, Size] | None = None
    read: Size | None = None

    def add(self, other: "Shown") -> None:
        """Add what other images, or another call of the same name, have shown."""
        self.units += other.units
        self.ends |= other.ends
        self.lost = self.lost or other.lost
        self.wrong = self.wrong or other.wrong
        self.read = other.read or self.read


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
        """Layers all of whose fields reach the images' border: shown as far as these go."""
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
            read, total = shown.read or (0, 0)
            if read < total and shown.lost is None:
                found.append({"layer": layer, "axis": axis, "contributing": read, "total": total})
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
    def length(self) -> int:
        """How many rows (or columns) an image has."""
        return self.size[self.axis]

    @property
    def batches(self) -> list[IntArray]:
        """The rows of the images that run together."""
        return np.array_split(self.rows, -(-len(self.rows) // self.batch_size))


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
    names = {row.name for row in layers_of(run)}
    result, count = Verification(), len(run.steps)
    for axis in (0, 1):
        canvases = list(_canvases(maps, input_size, axis))
        for canvas in canvases:
            proofs: list[Proof] = []
            for rows in canvas.batches:
                proofs.append(Proof(module, rows, canvas, assume_pointwise))
                if proofs[-1].error is not None:
                    break
                progress(count * axis + count * len(proofs) // len(canvas.batches), 2 * count)
            for call, shown in _judged(proofs, canvas).items():
                if call.name in names or shown.wrong is not None:
                    key = call.name, AXIS_NAMES[axis]
                    result.shown.setdefault(key, Shown()).add(shown)
            if proofs[-1].error is None:
                result.canvases.append(canvas.size)
                break
            if canvas is canvases[-1]:
                raise proofs[-1].error
    return result


@dataclass(frozen=True)
class _Seen:
    """The fields of an operation's units in one batch, and which of them NaN has reached.

    All can be broadcast to `shape`; images follow each other along `dim`, if there are several.
    """

    low: IntArray
    high: IntArray
    pixel: IntArray
    packed: NDArray[np.uint8]
    shape: tuple[int, ...]
    dim: int | None

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Which units are NaN, of `shape`."""
        bits = np.unpackbits(self.packed, count=math.prod(self.shape))
        return bits.reshape(self.shape).astype(bool)


class Proof(Run):  # type: ignore[no-untyped-call]
    """Runs the network on one image for each of `rows`, in which that row is NaN.

    Args:
        model: the network.
        rows: of each image, which row (or column) is NaN.
        canvas: how they were chosen.
        vouched: operations that are element-wise by the user's word.
    """

    def __init__(
        self, model: nn.Module, rows: IntArray, canvas: Canvas, vouched: Collection[str]
    ) -> None:
        with evaluating(model):
            images = random_image(model, canvas.size).repeat(len(rows), 1, 1, 1)
            for image, row in zip(images, rows.tolist(), strict=True):
                image.select(1 + canvas.axis, row).fill_(torch.nan)
            super().__init__(model, images, vouched, dims=(2 + canvas.axis, 0))
            self.seen: dict[int, _Seen] = {}
            self.reasons: dict[int, str] = {}
            self._rows = rows
            self.error = self._run(model, images)

    def _run(self, model: nn.Module, images: Tensor) -> UserError | None:
        """Run the network; return why it cannot."""
        try:
            prove(self, model, images)
        except UserError as error:
            return error
        except Exception as error:  # the user's forward may raise anything
            if is_ours(error.__traceback__):
                raise
            where = f"in {self.calls.module_name() or 'its forward'}{place_of_error(error)}"
            return UserError(
                "the proof sets pixels to NaN, and the network cannot run on them: "
                f"{type(error).__name__} {where}: {one_line(error)}"
            )
        return None

    def execute(self, op: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation; statistics and taps of weight 0 do not spread NaN."""
        is_norm = op in NORMALIZATIONS or op == "rms_norm"
        if not is_norm and op not in RESAMPLINGS:
            return func(*args, **kwargs)
        nan = args[0].isnan()
        result = func(args[0].nan_to_num(), *args[1:], **kwargs)
        mask = nan if is_norm else func(nan.to(args[0].dtype), *args[1:], **kwargs) != 0
        (result if isinstance(result, Tensor) else result[0]).masked_fill_(mask, torch.nan)
        return result

    def whole_function(self, name: str, func: Any, args: Any) -> Any:
        """Run a function; pads that wrap around count as outside of the image, as all do."""

        def run(*given: Any) -> Any:
            return self.execute(name, func, given[:2] if name == "pad" else given, {})

        return super().whole_function(name, run, args)

    def look_at(self, step: Step, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Note which units of an operation's first output are NaN."""
        index, output, function = len(self.steps) - 1, outputs[0], step.call.function
        if not output.is_floating_point():
            self.reasons[index] = f"{function} gives no numbers that can be NaN"
        elif any(not t.is_floating_point() and self.value_of(t) is not None for t in inputs):
            self.reasons[index] = f"{function} is given no numbers that can be NaN"
        elif step.op in LOSING:
            self.reasons[index] = f"NaN does not follow {function}"
        if not output.is_floating_point() or not output.numel() or not all(step.field.axes):
            return
        low, high = span(step.field.axes[0], step.field.shape)
        image, last_image = span(step.field.axes[1], step.field.shape)
        if (image < last_image).any():
            self.reasons[index] = "it mixes the images of a batch"
            return
        same = tuple(d for d in range(low.ndim) if low.shape[d] == 1 == image.shape[d])
        nan = output.isnan().any(same, keepdim=True) if same else output.isnan()
        pixel = self._rows[np.where(image <= last_image, image, 0)]
        dims = [d for d in range(image.ndim) if (image.min(d) < last_image.max(d)).any()]
        packed, dim = np.packbits(nan.cpu().numpy()), dims[0] if dims else None
        self.seen[index] = _Seen(low, high, pixel, packed, tuple(nan.shape), dim)


def prove(proof: Proof, model: nn.Module, images: Tensor) -> None:
    """Run the network, and note what turns NaN."""
    with proof.running():
        model(images)


def _judged(proofs: Sequence[Proof], canvas: Canvas) -> dict[Call, Shown]:
    """Compare the units of all operations with what was seen on all batches of a canvas."""
    lost: dict[int, str] = {}
    found: dict[Call, Shown] = {}
    jump = 1
    for index, step in enumerate(proofs[-1].steps):
        slopes = [abs(family.slope) for family in step.field.axes[0] if family.dim is not None]
        jump = max([jump, *(math.ceil(slope) for slope in slopes)])
        before = (lost[value.made] for value in step.inputs if value.made in lost)
        shown = Shown(lost=proofs[-1].reasons.get(index) or next(before, None))
        parts = [proof.seen[index] for proof in proofs if index in proof.seen]
        if parts:
            _compare(step, parts, canvas, 2 * jump, shown)
        if shown.lost is not None:
            lost[index] = shown.lost
        if step.call.name:
            found[step.call] = shown
    return found


def _compare(step: Step, parts: Sequence[_Seen], canvas: Canvas, margin: int, shown: Shown) -> None:
    """Compare each unit; what sees a border within `margin` pixels may be reached by less."""
    low, high, pixel, reached, dim = _joined(parts)
    border = np.full_like(low, margin)
    if len(canvas.rows) == canvas.length:  # those of the middle half alone
        border = np.maximum(border, (canvas.length - (high - low)) // 4)
    whole = (low >= border) & (high < canvas.length - border) & (low <= high)
    seen = whole & reached.any(dim, keepdims=True)  # not, where the other axis sees nothing
    beyond = reached & ((pixel < low) | (high < pixel))
    missing = seen & ~reached & ((pixel == low) | (pixel == high))
    shown.units = low.size
    if step.kind == Kind.POINTWISE and not beyond.any() and (missing.any() or not reached.any()):
        shown.lost = shown.lost or f"{step.call.function} gives numbers for NaN"
    elif not reached.any():
        shown.lost = shown.lost or "no pixel has a part in it"
    for bad in (beyond, missing)[: 1 if shown.lost else 2]:
        shown.wrong = shown.wrong or _wrong_unit(bad, low, high, pixel, reached)
    for name, end in (("low", low), ("high", high)):
        at = seen & (pixel == end)
        if at.any() and not (at & ~reached).any():
            shown.ends.add(name)
    if seen.any():
        arrays = (low, high, pixel, np.where(seen, abs(low + high - canvas.length), FAR))
        lows, highs, pixels, off = (np.broadcast_to(each, reached.shape) for each in arrays)
        unit = np.unravel_index(off.argmin(), off.shape)
        mine = (lows == lows[unit]) & (highs == highs[unit])
        total = int(highs[unit] - lows[unit]) + 1
        if len(np.unique(pixels[mine & (lows <= pixels) & (pixels <= highs)])) == total:
            shown.read = len(np.unique(pixels[mine & reached])), total


def _joined(
    parts: Sequence[_Seen],
) -> tuple[IntArray, IntArray, IntArray, NDArray[np.bool_], int]:
    """Return low, high, pixel and reached of all batches, and the dimension of the images."""
    first = parts[0]
    if first.dim is None:
        pixel, reached = (
            np.stack([np.broadcast_to(p.pixel, p.shape) for p in parts]),
            [p.reached for p in parts],
        )
        return first.low[None], first.high[None], pixel, np.stack(reached), 0
    dim = first.dim

    def along(arrays: Sequence[Any]) -> Any:
        return np.concatenate(arrays, dim) if arrays[0].shape[dim] > 1 else arrays[0]

    low, high, pixel, reached = (
        along([getattr(part, name) for part in parts])
        for name in ("low", "high", "pixel", "reached")
    )
    return low, high, pixel, reached, dim


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
    jump = max([1, *(math.ceil(abs(float(row.walks[axis].jump or 1))) for row in maps)])
    largest = max((row.walks[axis].size for row in maps), default=1)
    length = -(-(largest + ROOM * jump) // jump) * jump
    rows = np.arange(length)
    if length * length * size[1 - axis] > MOST_PIXELS:
        rows = np.r_[3 * jump : 4 * jump, length - 4 * jump : length - 3 * jump]
    if length > size[axis] and len(rows) * length * size[1 - axis] <= MOST_PIXELS:
        long = (length, size[1]) if axis == 0 else (size[0], length)
        yield Canvas(long, axis, rows, max(BATCH_PIXELS // math.prod(long), 1))
    every = np.arange(size[axis])
    yield Canvas(size, axis, every, max(BATCH_PIXELS // math.prod(size), 1))
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
