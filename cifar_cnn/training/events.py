"""What a run reports to its listeners while it goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cifar_cnn.settings import Settings
from cifar_cnn.training.history import EpochRow


@dataclass(frozen=True)
class RunStarted:
    """Images and network are ready; training begins, or goes on after `step` steps."""

    directory: Path
    settings: Settings
    device: str
    steps_per_epoch: int
    parameters: int
    history: tuple[EpochRow, ...]
    notes: tuple[str, ...]
    step: int = 0
    eval_split: str = "test"


@dataclass(frozen=True)
class StepEnded:
    """A step is done (on CUDA: several are); loss and accuracy are the epoch's running means.

    `batch` is its index within the epoch.
    """

    epoch: int
    batch: int
    loss: float
    accuracy: float
    lr: float
    images_per_second: float


@dataclass(frozen=True)
class EpochEnded:
    """An epoch is trained, evaluated and saved in `last.pt`; `history` ends with it."""

    directory: Path
    history: tuple[EpochRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunEnded:
    """The run is finished, or stopped and saved; `history` has its epochs."""

    directory: Path
    finished: bool
    history: tuple[EpochRow, ...]


Event = RunStarted | StepEnded | EpochEnded | RunEnded
Listener = Callable[[Event], None]
