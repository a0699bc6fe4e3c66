"""Checks before the first step, so that a run does not fail at its end."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cifar_cnn.analysis.weights import check_registered
from cifar_cnn.data.dataset import Normalization, Split, normalize
from cifar_cnn.errors import ModelError, RunError, UserError
from cifar_cnn.inference.trained import predict_log_probabilities
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import set_training, unchanged, weights_of
from cifar_cnn.models.output import is_probability
from cifar_cnn.results import Result
from cifar_cnn.storage.archive import load_archive
from cifar_cnn.storage.checkpoint import Checkpoint, pack
from cifar_cnn.training.optimizer import make_optimizer
from cifar_cnn.training.trainer import Trainer

SHOWN = 1000
"""Training images that a network may see before its first step."""


class DryRun(Result):
    """The loss of one batch, without a run."""

    model: str
    loss: float


def describe_hopeless(train: Split, output: Tensor) -> list[str]:
    """Return a line for each reason why there is nothing, or little, to learn."""
    if bool((train.labels == train.labels[0]).all()):
        return ["all training images are of one class: there is nothing to tell apart"]
    if is_probability(output):
        return [
            "the network's outputs sum to one, as after a softmax, which training applies itself: "
            "the loss will hardly fall; return logits instead"
        ]
    return []


def show_images(model: nn.Module, train: Split, normalization: Normalization) -> None:
    """Show training images to a network that asks for them, before its first step.

    One with a method `see_images` is called with up to `SHOWN` of them, class-balanced, normalized
    float32 (N, 3, H, W). What it makes of them belongs into its state dict.
    """
    see = getattr(model, "see_images", None)
    if see is None:
        return
    with guarded("the network cannot see_images", ModelError):
        see(normalize(train.limited(SHOWN).images, normalization))


def try_training(trainer: Trainer) -> list[str]:
    """Train and evaluate on a batch before anything is written; choose fp32 where bf16 fails.

    The network and all random numbers stay as they are. Returns what the user should know.
    """
    first = ""
    try:
        train_once(trainer)
    except UserError as error:
        first = str(error)
    if not trainer.processes.any(bool(first)):
        return []
    settings = trainer.settings
    trainer.settings = settings.model_copy(update={"precision": "fp32"})
    trainer.training_step.settings = trainer.settings
    train_once(trainer, find_line=True)
    return [f"this run computes in fp32: in bf16 {first}"] if settings.precision == "bf16" else []


def train_once(trainer: Trainer, *, find_line: bool = False) -> float:
    """Do the first step of this process and an evaluation; undo it, and return its loss."""
    step, model = trainer.training_step, trainer.model
    count = min(trainer.batches.size(0), len(trainer.evaluation))
    batch = trainer.batches.at(0, 0, trainer.processes.part(trainer.batches.size(0)).images)
    failing = f"the network fails on a training batch of {len(batch[0])}"
    with (
        unchanged(model),
        warnings.catch_warnings(record=True) as said,
        torch.autograd.set_detect_anomaly(find_line, check_nan=False),
        guarded(failing, RunError, model, said),
    ):
        warnings.simplefilter("always")
        set_training(model, True)
        with step.explaining_memory(len(batch[0])):
            loss, _ = step.forward(*batch)
            check_registered(model, loss)
            loss.backward()  # type: ignore[no-untyped-call]
        make_optimizer(model, trainer.settings).step()
        predict_log_probabilities(
            model,
            trainer.evaluation.images[:count],
            trainer.device,
            trainer.settings.precision,
            normalization=trainer.batches.normalization,
            threads=trainer.threads,
        )
        return loss.item()


def try_saving(model: nn.Module, make: Callable[[], Checkpoint]) -> None:
    """Find out whether a checkpoint can be written and read again."""
    for name, value in weights_of(model).items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"the network cannot be saved: {name} of its state dict is "
                f"{type(value).__name__}, not a tensor"
            )
    with guarded("the network cannot be saved", ModelError):
        load_archive(pack(make()))
