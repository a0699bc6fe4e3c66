"""The metrics of a run as TensorBoard event files."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from cifar_cnn.errors import UserError
from cifar_cnn.training.events import EpochEnded, Event, RunEnded, RunStarted
from cifar_cnn.training.history import EpochRow
from cifar_cnn.training.run_files import EVENTS, remove_events

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardEvents:
    """Listener that writes the metrics of each epoch, by step, below the run directory.

    The files are begun anew when a run starts or goes on, from its whole history, so they hold
    what metrics.csv holds.

    Raises:
        UserError: the extra `tensorboard` is not installed.
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
