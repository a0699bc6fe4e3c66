"""Prove a table of receptive fields by running the unchanged network on NaN pixels.

Each image of a batch has one row of pixels set to NaN, another in each. NaN spreads to exactly
those units that read the row, so that every unit of every operation can be held against the
fields of the same run: no unit may turn NaN by a row outside of its field, and those that see no
border must by its first row and by its last. The same is done for columns.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cifar_cnn.analysis.field import IntArray
from cifar_cnn.analysis.layers import Layer, layers_of
from cifar_cnn.analysis.network import Model, evaluating, open_model, random_image, run_network
from cifar_cnn.analysis.receptive_field import AXIS_NAMES
from cifar_cnn.analysis.results import Verification
from cifar_cnn.analysis.run import Run
from cifar_cnn.analysis.steps import RULES, Kind, Step
from cifar_cnn.analysis.verification import Canvas, Evidence, Reach, Size, conclude, judge
from cifar_cnn.data.dataset import Progress
from cifar_cnn.errors import UserError
from cifar_cnn.runtime import global_state_kept

ROOM = 8
"""Units of the coarsest map that a canvas has room for beyond the largest field."""
MOST_PIXELS = 1 << 21
"""Of all images of an axis: where fields take more, they are shown on the image's own size."""
BATCH_PIXELS = 1 << 19
"""Of the images that run together."""
MIXED = "it mixes the images of a batch"
PADS = ("pad", "reflection_pad", "replication_pad")
"""Pads that repeat pixels: whatever they hold, it counts as outside of the image."""
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
    rows, count = layers_of(run), len(run.steps)
    names, maps = {row.name for row in rows}, [row for row in rows if row.is_map]
    proved: list[Size] = []
    evidence: defaultdict[tuple[str, str], Evidence] = defaultdict(Evidence)
    for axis, axis_name in enumerate(AXIS_NAMES):
        canvases = [*_canvases(maps, input_size, axis)]
        for canvas in canvases:
            proofs: list[Proof] = []
            for pixels in canvas.batches:
                proofs.append(Proof(module, canvas, pixels, assume_pointwise))
                proofs[-1].prove(module)
                if proofs[-1].error is not None:
                    break
                done = count * axis + count * len(proofs) // len(canvas.batches)
                progress("proving", None, done, 2 * count)
            reasons, error = proofs[-1].reasons, proofs[-1].error
            is_mixed = any(MIXED in proof.reasons.values() for proof in proofs)
            if is_mixed and canvas is not canvases[-1]:
                continue  # one image at a time they are apart
            seen = [proof.seen for proof in proofs]
            for call, finding in judge(proofs[-1].steps, seen, reasons, canvas).items():
                if call.name in names or finding.wrong is not None:
                    evidence[call.name, axis_name].add(finding)
            if error is None:
                proved.append(canvas.size)
                break
            if canvas is canvases[-1]:
                raise error
    return conclude(proved, evidence)


class Proof(Run):  # type: ignore[no-untyped-call]
    """Records which units turn NaN when one of the `pixels` of each image is a row of NaN."""

    def __init__(
        self, model: nn.Module, canvas: Canvas, pixels: IntArray, assume_pointwise: Collection[str]
    ) -> None:
        images = random_image(model, canvas.size).repeat(len(pixels), 1, 1, 1)
        for image, pixel in zip(images, pixels.tolist(), strict=True):
            image.select(1 + canvas.axis, pixel).fill_(torch.nan)
        super().__init__(model, images, assume_pointwise, dims=(2 + canvas.axis, 0))
        self.seen: dict[int, Reach] = {}
        self.reasons: dict[int, str] = {}
        self.error: UserError | None = None
        self._pixels = pixels

    def prove(self, model: nn.Module) -> None:
        """Run the network on an image for each of the pixels."""
        failure = "the proof sets pixels to NaN, and the network cannot run on them"
        try:
            with evaluating(model), self.guarded(failure, UserError), self.running():
                model(self.image)
        except UserError as error:
            self.error = error

    def execute(self, op: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation; statistics, taps of weight 0 and what pads repeat do not spread NaN."""
        if op.startswith(PADS):
            return F.pad(args[0], args[1])
        is_norm = op == "rms_norm" or RULES.get(op, (None,))[0] == Kind.NORMALIZATION
        if not is_norm and "upsample_" not in op:
            return func(*args, **kwargs)
        nan = args[0].isnan()
        result = func(args[0].nan_to_num(), *args[1:], **kwargs)
        mask = nan if is_norm else func(nan.to(args[0].dtype), *args[1:], **kwargs) != 0
        (result if isinstance(result, Tensor) else result[0]).masked_fill_(mask, torch.nan)
        return result

    def look_at(self, step: Step, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Note which units of an operation's first output are NaN."""
        index, output, function = len(self.steps) - 1, outputs[0], step.call.function
        if not output.is_floating_point():
            self.reasons[index] = f"{function} gives no numbers that can be NaN"
        elif not any(t.is_floating_point() for t in inputs if self.values[t] is not None):
            self.reasons[index] = f"{function} is given no numbers that can be NaN"
        elif step.op in LOSING:
            self.reasons[index] = f"NaN does not follow {function}"
        axes = {family.axis for family in step.field.families}
        if not output.is_floating_point() or not output.numel() or len(axes) < 2:
            return
        low, high = step.field.span(0)
        image, last_image = step.field.span(1)
        if (image < last_image).any():
            self.reasons[index] = MIXED
            return
        same = tuple(d for d in range(low.ndim) if low.shape[d] == 1 == image.shape[d])
        nan = (output.amax(same, keepdim=True) if same else output).isnan().cpu().numpy()
        pixel = self._pixels[np.where(image <= last_image, image, 0)]
        dims = [d for d in range(image.ndim) if (image.min(d) < last_image.max(d)).any()]

        def by_image(array: NDArray[Any]) -> NDArray[Any]:
            return np.moveaxis(array, dims[0], 0) if dims else array[None]

        self.seen[index] = by_image(low), by_image(high), by_image(pixel), by_image(nan)


def _canvases(maps: Sequence[Layer], size: Size, axis: int) -> Iterator[Canvas]:
    """Yield the image sizes and rows to run the proof on, best first.

    On images that show every field whole, two runs of rows are enough, each as long as the largest
    step from unit to unit: for each layer some unit begins in the first, and some unit ends in the
    last.
    """
    jump = max([1, *(math.ceil(abs(row.walks[axis].jump or 1)) for row in maps)])
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
