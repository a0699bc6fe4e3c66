"""What `summarize` and `receptive-field` print; fields, windows and maps are [height, width]."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

ImageSize = Annotated[list[int], Field(min_length=3, max_length=3)]
"""[3, height, width]."""
Pair = Annotated[list[int], Field(min_length=2, max_length=2)]
Share = Annotated[float, Field(ge=0, le=1)]


class Failure(TypedDict):
    """What any command prints where it fails."""

    error: str
    exit_status: int


class NetworkFailure(Failure):
    """What of several networks one has that failed."""

    model: str


class SummaryLayer(TypedDict):
    """A module; its output, without the batch, is [] where it did not run as one."""

    name: str
    type: str
    output_size: list[int]
    parameters: int
    mult_adds: int


class Totals(TypedDict):
    """Of a whole network; sizes in MiB, for one image."""

    parameters: int
    trainable: int
    non_trainable: int
    mult_adds: int
    input_mb: float
    forward_backward_mb: float
    parameters_mb: float
    total_mb: float


class Requirement(TypedDict):
    """An item of a budget and how a network meets it."""

    name: str
    limit: int
    actual: int | None
    passed: bool
    detail: str


class Features(TypedDict):
    """The last map before global pooling or flattening.

    Where global gates let each unit see the whole image, `without_gates` is the field without them.
    """

    receptive_field: Pair
    jump: list[float | None]
    padding: Pair
    layer: str
    without_gates: NotRequired[Pair]


class Final(TypedDict):
    """The network's output; its field is not clipped to the image."""

    receptive_field: Pair
    covers_input: bool


class BudgetVerdict(TypedDict):
    """The answer to a budget, and the pyproject.toml that set limits of it, if one did."""

    passed: bool
    file: str | None
    requirements: list[Requirement]
    features: Features | None
    final: Final | None


class Summary(TypedDict):
    """`summarize`; the budget is null with `--no-budget`, the checkpoint a file that was named."""

    model: str
    input_size: ImageSize
    layers: list[SummaryLayer]
    totals: Totals
    budget: BudgetVerdict | None
    warnings: NotRequired[list[str]]
    checkpoint: NotRequired[str]


class FieldLayer(TypedDict):
    """A layer's window and field; after global pooling or flattening the jump is null."""

    name: str
    type: str
    output_size: Pair
    kernel: Pair
    stride: Pair
    padding: list[Pair]
    dilation: Pair
    receptive_field: Pair
    jump: list[float | None] | None
    start: list[float | None]


class Unit(TypedDict):
    """One unit of the features, where one row does not hold for all."""

    receptive_field: Pair
    start: list[float | None]


class Units(TypedDict):
    """Three units of the features."""

    first: Unit
    middle: Unit
    last: Unit


class WrongUnit(TypedDict):
    """A unit along one axis: first and last pixel of its field, and of what it reads."""

    layer: str
    axis: str
    unit: int
    analytic: Pair
    reached: Pair


class NotShown(TypedDict):
    """A layer that the proof says nothing of, and why."""

    layer: str
    reason: str


class Gridding(TypedDict):
    """A field with holes."""

    layer: str
    axis: str
    contributing: int
    total: int


class Verification(TypedDict):
    """`receptive-field --verify`."""

    agreed: bool
    layers: int
    units: int
    canvases: list[Pair]
    clipped: list[str]
    not_shown: list[NotShown]
    first_disagreement: WrongUnit | None
    gridding: list[Gridding]


class TheoreticalField(TypedDict):
    """The computed field of the unit whose effective field it is; `clipped`: the share outside."""

    receptive_field: Pair
    top: int
    left: int
    clipped: Share


class Square(TypedDict):
    """The smallest square that holds a share of the gradient's mass."""

    mass: Share
    side: int
    top: int
    left: int


class EffectiveField(TypedDict):
    """`receptive-field --effective`."""

    target: Literal["features", "logits"]
    samples: int
    layer: str
    unit: Pair | None
    theoretical: TheoreticalField
    squares: list[Square]


class ReceptiveField(TypedDict):
    """`receptive-field`; the checkpoint is a file that was named as the network."""

    model: str
    input_size: ImageSize
    layers: list[FieldLayer]
    features: Features
    final: Final
    aligned: bool
    units: Units | None
    warnings: list[str]
    minimum: int
    passed: bool
    checkpoint: NotRequired[str]
    verification: NotRequired[Verification]
    effective: NotRequired[EffectiveField]


class Reached(TypedDict):
    """Mean test accuracy on CIFAR-10 of n runs after their last epoch."""

    epochs: int
    accuracy: Share
    n: int


class BuiltIn(TypedDict):
    """An entry of `models`: a built-in network, and what it reaches with its recipe."""

    model: str
    parameters: int
    mult_adds: int
    features: Features
    final: Final
    recipe: str
    reached: list[Reached]
