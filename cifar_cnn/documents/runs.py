"""What `train` and `runs` print: accuracies are fractions, losses nats per image."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from cifar_cnn.results import Share


class SplitFigures(TypedDict):
    """What came of evaluating on a split."""

    split: str
    accuracy: Share
    loss: float


class Run(TypedDict):
    """An entry of `runs`; eval is null before an epoch has ended."""

    name: str
    run: str
    state: Literal["finished", "interrupted", "running"]
    model: str
    recipe: str
    dataset: str
    epochs: int
    planned_epochs: int
    parameters: int | None
    eval: SplitFigures | None
    seconds: float


class TrainFigures(TypedDict):
    """Running means over an epoch's augmented images."""

    accuracy: Share
    loss: float


class Epoch(TypedDict):
    """An epoch of a run; `seconds` are of training only."""

    epoch: int
    step: int
    lr: float
    train: TrainFigures
    eval: SplitFigures
    seconds: float
    images_per_second: float


class RunFile(TypedDict):
    """A file in a run's folder; size in bytes."""

    name: str
    size: int


class RunShown(Run):
    """`runs show`: settings by name, and those that the recipe has otherwise; each epoch."""

    settings: dict[str, Any]
    changed: dict[str, Any]
    files: list[RunFile]
    environment: dict[str, Any]
    history: list[Epoch]


class ComparedRun(Run):
    """A run of a comparison."""

    seed: int


class Deviation(TypedDict):
    """Sample deviations over runs that differ in their seed alone."""

    accuracy: float
    loss: float
    seconds: float


class RunLine(TypedDict):
    """Runs that differ in their seed alone: means, and deviations where there are several.

    The settings are those in which the lines differ; eval is null before an epoch has ended.
    """

    n: int
    settings: dict[str, Any]
    dataset: str
    epochs: int
    planned_epochs: int
    parameters: int | None
    eval: SplitFigures | None
    seconds: float
    deviation: Deviation | None
    runs: list[ComparedRun]


class Comparison(TypedDict):
    """`runs compare`; the names of settings that differ, and the picture of `--plot`."""

    differing: list[str]
    lines: list[RunLine]
    warnings: list[str]
    plot: NotRequired[str]


class TrainResult(TypedDict):
    """`train`; without a `model_file` it was stopped, eval is null before an epoch has ended."""

    run: str
    model_file: str | None
    epochs: int
    steps: int
    eval: SplitFigures | None
    seconds: float
    images_per_second: float


class DryRun(TypedDict):
    """`train --dry-run`: the loss of one batch."""

    model: str
    loss: float


class RangeStep(TypedDict):
    """A step of a learning rate range test."""

    lr: float
    loss: float
    smoothed_loss: float


class RangeTest(TypedDict):
    """`train --find-lr`: `lr` is the settings' own; `diverging_lr` is null where none is."""

    model: str
    recipe: str
    dataset: str
    lr: float
    suggested_lr: float
    steepest_lr: float
    lowest_lr: float
    diverging_lr: float | None
    curve: list[RangeStep]
    plot: NotRequired[str]
