"""The results of the analysis, as `--json` prints them. Needs no torch.

Sizes, windows and fields are (height, width).
"""

import operator
from typing import Annotated, Any, Literal

from pydantic import Field

from cifar_cnn.results import Failure, IfGiven, NotInJson, Number, Pair, Result, Share

ImageSize = tuple[Literal[3], int, int]
Target = Literal["features", "logits"]


class NetworkFailure(Failure):
    """The entry of a failed network in a list of several."""

    model: str


class SummaryLayer(Result):
    """A module: its output for one image, without the batch, its own parameters and mult-adds.

    The output's size is () if the module holds parameters, but did not run as a module.
    """

    name: str
    type: str
    output_size: tuple[int, ...]
    parameters: int
    mult_adds: int


class Totals(Result):
    """Sums over a network; sizes in MiB, for one float32 image.

    `forward_backward_mb` is every layer's output, and as much again for its gradient.
    """

    parameters: int
    trainable: int
    non_trainable: int
    mult_adds: int
    input_mb: float
    forward_backward_mb: float
    parameters_mb: float
    total_mb: float


class DeviceMemory(Result):
    """Bytes of the weights in flash, and of live activations in RAM, whose peak is at a layer."""

    flash_int8: int
    flash_fp32: int
    ram_int8: int
    ram_fp32: int
    peak: str


class Requirement(Result):
    """One item of the budget and how the network meets it."""

    name: str
    limit: int
    actual: int | None
    passed: bool
    detail: str


class Features(Result):
    """The last map before global pooling or flattening.

    If global gates let its units see the whole image, `without_gates` is the field without them.
    """

    receptive_field: Pair
    jump: tuple[Number | None, Number | None]
    padding: Pair
    layer: str
    without_gates: IfGiven[Pair] = None


class Final(Result):
    """The network's output; its field is the largest, and not clipped to the image."""

    receptive_field: Pair
    covers_input: bool


class Verdict(Result):
    """The verdict on a budget; `file` is the pyproject.toml that set limits, if one did.

    The fields are None if an operation is unknown.
    """

    passed: bool
    file: str | None
    requirements: tuple[Requirement, ...]
    features: Features | None
    final: Final | None


class Summary(Result):
    """The layers of a network, and the verdict on it; `checkpoint` is the file of its weights."""

    model: str
    input_size: ImageSize
    layers: tuple[SummaryLayer, ...]
    totals: Totals
    device: DeviceMemory
    budget: Verdict | None
    warnings: Annotated[tuple[str, ...], Field(exclude_if=operator.not_)] = ()
    checkpoint: IfGiven[str] = None


class FieldLayer(Result):
    """A layer's window and field; after global pooling or flattening the jump is None."""

    name: str
    type: str
    output_size: Pair
    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    receptive_field: Pair
    jump: tuple[Number | None, Number | None] | None
    start: tuple[Number | None, Number | None]

    @property
    def has_window(self) -> bool:
        """Whether it reads more of a map, or puts out less of it, than each place by itself."""
        ones = self.kernel, self.stride, self.dilation
        return {*ones} != {(1, 1)} or self.padding != ((0, 0), (0, 0))


class Unit(Result):
    """One unit of the features."""

    receptive_field: Pair
    start: tuple[Number | None, Number | None]


class Units(Result):
    """Three units of the features."""

    first: Unit
    middle: Unit
    last: Unit


class WrongUnit(Result):
    """A unit along one axis: first and last pixel of its field, and of what it reads."""

    layer: str
    axis: str
    unit: int
    analytic: Pair
    reached: Pair


class NotShown(Result):
    """A layer that the proof cannot compare, and why."""

    layer: str
    reason: str


class Gridding(Result):
    """A field with holes: how many of its pixels contribute."""

    layer: str
    axis: str
    contributing: int
    total: int


class Verification(Result):
    """The result of the proof: how many layers and units were compared, and whether all agree.

    `canvases` are the sizes of the images on which rows, and of those on which columns were NaN.
    All fields of the layers in `clipped` reach the border of these images, and are shown as far.
    """

    agreed: bool
    layers: int
    units: int
    canvases: tuple[Pair, ...]
    clipped: tuple[str, ...]
    not_shown: tuple[NotShown, ...]
    first_disagreement: WrongUnit | None
    gridding: tuple[Gridding, ...]


class TheoreticalField(Result):
    """The computed field of the same unit, and which share of it the image clips."""

    receptive_field: Pair
    top: int
    left: int
    clipped: Share


class Square(Result):
    """The smallest square of pixels that holds a share of the gradient's mass."""

    mass: Share
    side: int
    top: int
    left: int


class EffectiveField(Result):
    """The gradient of a unit, summed over images, and the smallest squares that hold it.

    `unit` is (row, column) in the layer's map; None for each image's largest logit.
    """

    target: Target
    samples: int
    layer: str
    unit: Pair | None
    theoretical: TheoreticalField
    squares: tuple[Square, ...]
    heat: NotInJson[Any] = None
    """(H, W) float64 array: the share of each pixel, 1 in total."""


class ReceptiveField(Result):
    """The fields of a network; `aligned` says whether all paths agree on jump and center.

    The features are the image itself if the network flattens it first. `units` are three of theirs
    if one row does not hold for all. The smaller side of the final field must be above `minimum`.
    """

    model: str
    input_size: ImageSize
    layers: tuple[FieldLayer, ...]
    features: Features
    final: Final
    aligned: bool
    units: Units | None
    warnings: tuple[str, ...]
    minimum: int
    passed: bool
    checkpoint: IfGiven[str] = None
    verification: IfGiven[Verification] = None
    effective: IfGiven[EffectiveField] = None
