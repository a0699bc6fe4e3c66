"""Listeners that write files beside a run's results: where it ran, and TensorBoard's events."""

import importlib.metadata
import json
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cifar_cnn.errors import UserError
from cifar_cnn.training.events import EpochEnded, Event, RunEnded, RunStarted
from cifar_cnn.training.history import EpochRow
from cifar_cnn.training.run_files import ENVIRONMENT, EVENTS, remove_events, write_file

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def write_environment(event: Event) -> None:
    """Listener that writes environment.json when a run starts, or goes on."""
    if not isinstance(event, RunStarted):
        return
    device = event.device
    document = {
        "cifar_cnn": importlib.metadata.version("cifar-cnn"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "parameters": event.parameters,
    }
    content = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_file(event.directory / ENVIRONMENT, content.encode())


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux, where platform.processor() is empty
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class TensorBoardEvents:
    """Listener that writes the metrics of each epoch, by step, below the run directory.

    The files are begun anew when a run starts or goes on, from its whole history, so they hold
    what metrics.csv holds. It needs the extra `tensorboard`.
    """

    def __init__(self) -> None:
        self.writer: SummaryWriter | None = None
        if find_spec("tensorboard") is None:
            raise UserError("--tensorboard needs a package: pip install '.[tensorboard]'")

    def __call__(self, event: Event) -> None:
        """Write what the event adds."""
        if isinstance(event, RunStarted):
            self._start(event)
        elif isinstance(event, EpochEnded):
            self._write(event.history[-1])
        elif isinstance(event, RunEnded) and self.writer:
            self.writer.close()

    def _start(self, event: RunStarted) -> None:
        from torch.utils.tensorboard import SummaryWriter

        remove_events(event.directory)
        self.writer = SummaryWriter(str(event.directory / EVENTS))
        for row in event.history:
            self._write(row)

    def _write(self, row: EpochRow) -> None:
        assert self.writer is not None
        values = {
            "loss/train": row.train_loss,
            f"loss/{row.eval_split}": row.eval_loss,
            "accuracy/train": row.train_accuracy,
            f"accuracy/{row.eval_split}": row.eval_accuracy,
            "lr": row.lr,
            "images_per_second": row.images_per_second,
        }
        for name, value in values.items():
            self.writer.add_scalar(name, value, row.step)
        self.writer.flush()
