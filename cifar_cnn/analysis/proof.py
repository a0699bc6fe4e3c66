"""Prove a table of receptive fields by running the unchanged network on NaN pixels.

Each image of a batch has one row of pixels set to NaN, another in each. NaN spreads to exactly
those units that read the row, so that every unit of every operation can be held against the
fields of the same run: no unit may turn NaN by a row outside of its field, and those that see no
border must by its first row and by its last. The same is done for columns.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_cnn.analysis.calls import Call, is_ours, place_of_error
from cifar_cnn.analysis.field import IntArray, span
from cifar_cnn.analysis.layers import Layer, layers_of
from cifar_cnn.analysis.misalignment import AXIS_NAMES
from cifar_cnn.analysis.network import Model, evaluating, open_model, random_image, run_network
from cifar_cnn.analysis.results import Verification
from cifar_cnn.analysis.rules import RESAMPLINGS, RULES
from cifar_cnn.analysis.run import Run
from cifar_cnn.analysis.steps import Kind, Step
from cifar_cnn.analysis.verification import Canvas, Evidence, Reach, Size, compare, conclude
from cifar_cnn.data.dataset import Progress
from cifar_cnn.errors import UserError, one_line
from cifar_cnn.runtime import global_state_kept

ROOM = 8
"""Units of the coarsest map that a canvas has room for beyond the largest field."""
MOST_PIXELS = 1 << 21
"""Of all images of an axis: where fields take more, they are shown on the image's own size."""
BATCH_PIXELS = 1 << 19
"""Of the images that run together."""
MIXED = "it mixes the images of a batch"
REPEATING = ("reflection_pad", "replication_pad")
LOSING = {"topk", "max_unpool1d", "max_unpool2d", "max_unpool3d"}
"""Operations whose outputs turn NaN in fewer places than they read."""


@global_state_kept()
def verify(
    model: Model,
    input_size: Size = (32, 32),
    *,
    model_arg: Sequence[str] = (),
    assume_pointwise: Collection[str] = (),
    progress: Progress = lambda *_: None,
) -> Verification:
    """Check the receptive field of every operation by setting image pixels to NaN.

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
    _, module, _ = open_model(model, model_arg)
    run, _ = run_network(module, input_size, assume_pointwise)
    maps = [row for row in layers_of(run) if row.is_map]
    names = {row.name for row in layers_of(run)}
    proved: list[Size] = []
    found: dict[tuple[str, str], Evidence] = {}
    count = len(run.steps)
    for axis in (0, 1):
        canvases = list(_canvases(maps, input_size, axis))
        for canvas in canvases:
            proofs: list[Proof] = []
            for rows in canvas.batches:
                proofs.append(prove(module, rows, canvas, assume_pointwise))
                if proofs[-1].error is not None:
                    break
                done = count * axis + count * len(proofs) // len(canvas.batches)
                progress("proving", None, done, 2 * count)
            is_mixed = any(MIXED in proof.reasons.values() for proof in proofs)
            if is_mixed and canvas is not canvases[-1]:
                continue  # one image at a time they are apart
            for call, shown in _judge(proofs, canvas).items():
                if call.name in names or shown.wrong is not None:
                    key = call.name, AXIS_NAMES[axis]
                    found.setdefault(key, Evidence()).add(shown)
            if proofs[-1].error is None:
                proved.append(canvas.size)
                break
            if canvas is canvases[-1]:
                raise proofs[-1].error
    return conclude(proved, found)


class Proof(Run):  # type: ignore[no-untyped-call]
    """Records which units turn NaN when one of the `rows` of each image is NaN."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        rows: IntArray,
        axis: int,
        assume_pointwise: Collection[str],
    ) -> None:
        super().__init__(model, images, assume_pointwise, dims=(2 + axis, 0))
        self.seen: dict[int, Reach] = {}
        self.reasons: dict[int, str] = {}
        self.error: UserError | None = None
        self._rows = rows

    def execute(self, op: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation; statistics, taps of weight 0 and what pads repeat do not spread NaN."""
        if op.startswith(REPEATING):
            return F.pad(args[0], args[1])
        is_norm = op == "rms_norm" or RULES.get(op, (None,))[0] == Kind.NORMALIZATION
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
        elif not any(t.is_floating_point() for t in inputs if self.values[t] is not None):
            self.reasons[index] = f"{function} is given no numbers that can be NaN"
        elif step.op in LOSING:
            self.reasons[index] = f"NaN does not follow {function}"
        if not output.is_floating_point() or not output.numel() or not all(step.field.axes):
            return
        low, high = span(step.field.axes[0], step.field.shape)
        image, last_image = span(step.field.axes[1], step.field.shape)
        if (image < last_image).any():
            self.reasons[index] = MIXED
            return
        same = tuple(d for d in range(low.ndim) if low.shape[d] == 1 == image.shape[d])
        nan = (output.amax(same, keepdim=True) if same else output).isnan()
        pixel = self._rows[np.where(image <= last_image, image, 0)]
        dims = [d for d in range(image.ndim) if (image.min(d) < last_image.max(d)).any()]
        packed, dim = np.packbits(nan.cpu().numpy()), dims[0] if dims else None
        self.seen[index] = Reach(low, high, pixel, packed, tuple(nan.shape), dim)


def prove(
    model: nn.Module, rows: IntArray, canvas: Canvas, assume_pointwise: Collection[str]
) -> Proof:
    """Run the network on an image for each of the rows (or columns), in which that row is NaN."""
    with evaluating(model):
        images = random_image(model, canvas.size).repeat(len(rows), 1, 1, 1)
        for image, row in zip(images, rows.tolist(), strict=True):
            image.select(1 + canvas.axis, row).fill_(torch.nan)
        proof = Proof(model, images, rows, canvas.axis, assume_pointwise)
        try:
            with proof.running():
                model(images)
        except UserError as error:
            proof.error = error
        except Exception as error:  # the user's forward may raise anything
            if is_ours(error.__traceback__):
                raise
            where = f"in {proof.calls.module_name() or 'its forward'}{place_of_error(error)}"
            proof.error = UserError(
                "the proof sets pixels to NaN, and the network cannot run on them: "
                f"{type(error).__name__} {where}: {one_line(error)}"
            )
    return proof


def _judge(proofs: Sequence[Proof], canvas: Canvas) -> dict[Call, Evidence]:
    """Compare the units of all operations with what was seen on all batches of a canvas."""
    lost: dict[int, str] = {}
    found: dict[Call, Evidence] = {}
    jump = 1
    for index, step in enumerate(proofs[-1].steps):
        slopes = [abs(family.slope) for family in step.field.axes[0] if family.dim is not None]
        jump = max([jump, *(math.ceil(slope) for slope in slopes)])
        before = (lost[value.made] for value in step.inputs if value.made in lost)
        shown = Evidence(lost=proofs[-1].reasons.get(index) or next(before, None))
        parts = [proof.seen[index] for proof in proofs if index in proof.seen]
        if parts:
            compare(step, parts, canvas, 2 * jump, shown)
        if len(shown.ends) == 2 and index not in proofs[-1].reasons:
            shown.lost = None  # NaN got here by another way
        if shown.lost is not None:
            lost[index] = shown.lost
        if step.call.name:
            found[step.call] = shown
    return found


def _canvases(maps: Sequence[Layer], size: Size, axis: int) -> Iterator[Canvas]:
    """Yield the image sizes and rows to run the proof on, best first.

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
