"""What is tried and shown before the first step, so that a run does not fail at its end."""

from collections.abc import Callable

from torch import Tensor, nn

from cifar_cnn.data.dataset import Normalization, Split, normalize
from cifar_cnn.errors import ModelError, one_line
from cifar_cnn.models.output import is_probability
from cifar_cnn.storage.archive import load_archive
from cifar_cnn.storage.checkpoint import Checkpoint, pack
from cifar_cnn.training.trainer import Trainer

SHOWN = 1000
"""Training images that a network may see before its first step."""


def describe_hopeless(train: Split, output: Tensor) -> list[str]:
    """Return a line for each reason why there is nothing, or little, to learn.

    Args:
        train: the training images.
        output: of the network, (N, classes).
    """
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

    Raises:
        ModelError: the method fails.
    """
    see = getattr(model, "see_images", None)
    if see is None:
        return
    try:
        see(normalize(train.limited(SHOWN).images, normalization))
    except Exception as error:  # a user's network may raise anything
        raise ModelError(f"the network cannot see_images: {one_line(error)}") from error


def try_saving(model: nn.Module, make: Callable[[], Checkpoint]) -> None:
    """Find out whether a checkpoint can be written and read again.

    Args:
        model: the network that is saved.
        make: returns the checkpoint.

    Raises:
        ModelError: the network's state is of a kind that it cannot hold.
    """
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"the network cannot be saved: {name} of its state dict is "
                f"{type(value).__name__}, not a tensor"
            )
    try:
        load_archive(pack(make()))
    except Exception as error:  # a user's network may hold anything
        raise ModelError(f"the network cannot be saved: {one_line(error)}") from error


def try_step(trainer: Trainer) -> float:
    """Run the next batch forward and backward, without an optimizer step; return its loss."""
    trainer.model.train()
    batch = trainer.batches.at(trainer.epoch, trainer.index)
    loss, _ = trainer.training_step.gradients(*batch)
    trainer.optimizer.zero_grad()
    return loss.item()
