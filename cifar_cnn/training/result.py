"""What a run came to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_cnn.training.history import EpochRow, best_row


@dataclass(frozen=True)
class RunResult:
    """What a run came to; without a `model_file` it was stopped early."""

    run: Path
    model_file: Path | None
    history: tuple[EpochRow, ...]
    steps: int

    def as_dict(self) -> dict[str, Any]:
        """Return the document of `train --json`; the times are of the training of whole epochs.

        `model_file` is null where the run was stopped, `eval` where no epoch was finished.
        """
        seconds = sum(row.seconds for row in self.history)
        images = sum(row.seconds * row.images_per_second for row in self.history)
        evaluation = None
        if self.history:
            best = best_row(self.history)
            evaluation = {
                "split": best.eval_split,
                "accuracy": best.eval_accuracy,
                "loss": best.eval_loss,
            }
        return {
            "run": str(self.run),
            "model_file": str(self.model_file) if self.model_file else None,
            "epochs": len(self.history),
            "steps": self.steps,
            "eval": evaluation,
            "seconds": seconds,
            "images_per_second": images / seconds if seconds else 0.0,
        }
