"""A checkpoint as a network ready for use."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cifar_cnn.errors import CheckpointError
from cifar_cnn.inference.checkpoint import Checkpoint, load_weights, read_checkpoint, settings_of
from cifar_cnn.models.output import check_output
from cifar_cnn.models.registry import build_model
from cifar_cnn.settings import Settings


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its weights, in evaluation mode on the CPU, and what it was trained for."""

    model: nn.Module
    checkpoint: Checkpoint
    settings: Settings


def load_trained(file: Path | str, overrides: Mapping[str, Any] | None = None) -> TrainedNetwork:
    """Build the network that a checkpoint names, with its weights.

    Args:
        file: `model.pt`, `best.pt` or `last.pt`.
        overrides: settings in place of the checkpoint's: model, input_size, device …

    Raises:
        CheckpointError: the file is unusable, or does not say classes and normalisation.
        RequestError: a setting is invalid, or the network cannot be built.
    """
    path = Path(file)
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, Checkpoint):
        raise CheckpointError(
            f"{path} is a bare state dict, without classes and normalisation: "
            "give a model.pt that cifar-cnn train has written"
        )
    settings = settings_of(checkpoint, path, overrides or {})
    model = build_model(settings.model, num_classes=len(checkpoint.classes))
    load_weights(model, checkpoint.state_dict, path)
    check_output(model, settings.input_size, len(checkpoint.classes))
    return TrainedNetwork(model.eval(), checkpoint, settings)
