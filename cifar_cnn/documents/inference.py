"""What `evaluate`, `predict`, `export` and `report` print."""

from typing import NotRequired

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from cifar_cnn.results import Pair, Share


class ClassScores(TypedDict):
    """Of one class; null where there is nothing to divide by."""

    accuracy: Share | None
    samples: int
    precision: Share
    recall: Share | None
    f1: Share | None


class MacroScores(TypedDict):
    """Means over the classes."""

    precision: Share
    recall: Share
    f1: Share


class Evaluation(TypedDict):
    """`evaluate`; in `confusion` rows are true classes, columns predicted ones."""

    checkpoint: str
    model: str
    dataset: str
    split: str
    samples: int
    loss: float
    accuracy: Share
    balanced_accuracy: Share
    macro: MacroScores
    per_class: dict[str, ClassScores]
    confusion: list[list[int]]
    calibration_error: Share
    tta: bool


ClassProbability = TypedDict("ClassProbability", {"class": str, "probability": float})


class ImagePrediction(TypedDict):
    """The most probable classes of an image; whether it was resized, or laid on white."""

    file: str
    resized: bool
    on_white: bool
    top: list[ClassProbability]


class UnreadableImage(TypedDict):
    """An image without an answer."""

    file: str
    reason: str


class Predictions(TypedDict):
    """`predict`; the last three where images have no answer."""

    predictions: list[ImagePrediction]
    precision: str
    explain: NotRequired[str]
    error: NotRequired[str]
    exit_status: NotRequired[int]
    unreadable: NotRequired[list[UnreadableImage]]


class TensorFormat(TypedDict):
    """What an exported network takes or gives; the first side of the shape is `batch`.

    Without a range, images are normalized, and outputs what the name says.
    """

    name: str
    shape: list[int | str]
    dtype: str
    range: Pair | None


class Export(TypedDict):
    """`export`; the size is in bytes, the time a median of one image."""

    file: str
    format: str
    size: int
    inputs: TensorFormat
    outputs: TensorFormat
    max_difference: float
    milliseconds: float


class Report(TypedDict):
    """`report`; the notes say what was left out and why."""

    report: str
    pictures: list[str]
    notes: list[str]
    markdown: NotRequired[str]
