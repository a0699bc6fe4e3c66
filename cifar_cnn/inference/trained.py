"""From a file to a network that is ready for use; everything that uses one comes through here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cifar_cnn.data.dataset import REFERENCE, Normalization, Split
from cifar_cnn.errors import CheckpointError, DataError
from cifar_cnn.inference.forward import predict_log_probabilities
from cifar_cnn.models.module import move, set_training
from cifar_cnn.runtime import resolve_device, resolve_precision
from cifar_cnn.settings import Settings
from cifar_cnn.storage.checkpoint import Checkpoint
from cifar_cnn.storage.network import build_stored, read_stored

T = TypeVar("T")


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its weights, in evaluation mode on its device, and what it was trained for.

    Args:
        classes: names in index order.
        precision: fp32 or bf16.
    """

    model: nn.Module
    classes: tuple[str, ...]
    normalization: Normalization
    settings: Settings
    device: torch.device
    precision: str

    def log_probabilities(self, images: Tensor, *, tta: bool = False) -> Tensor:
        """Return float32 (N, classes) on the CPU for uint8 images (N, 3, H, W)."""
        return predict_log_probabilities(
            self.model,
            images,
            self.device,
            self.precision,
            normalization=self.normalization,
            tta=tta,
            threads=self.settings.threads,
        )


@dataclass(frozen=True)
class StoredNetwork:
    """What a file holds, before the network is built.

    Args:
        checkpoint: the file's whole content; None for a bare state dict.
    """

    path: Path
    settings: Settings
    device: torch.device
    state_dict: Mapping[str, Tensor]
    checkpoint: Checkpoint | None

    def images(self, load: Callable[[Settings], T]) -> T:
        """Return what `load` makes of the settings; say whose folder it is that is not there."""
        try:
            return load(self.settings)
        except DataError as error:
            folder = self.settings.data_dir
            own = self.checkpoint is not None and folder == self.checkpoint.settings.data_dir
            if not own or folder.is_absolute() or folder.exists():
                raise
            raise DataError(
                f"{error}; {self.path} was trained with it, from another folder perhaps: "
                "--data-dir says where it is from here"
            ) from error

    def notes_on(self, data: Split) -> tuple[str, ...]:
        """Return a warning where `test_size` makes other files the test images than in training."""
        trained = self.checkpoint and self.checkpoint.test_sha256
        if not trained or data.test_sha256 in {None, trained}:
            return ()
        return (
            f"the files in {self.settings.data_dir} that test_size {self.settings.test_size:g} "
            "makes the test images are not those of the training: some may have been trained on",
        )

    def build(self, classes: tuple[str, ...] | None = None) -> TrainedNetwork:
        """Build the network for the classes of the data that it is used on, or for its own."""
        stored = self.checkpoint
        if classes is None:
            if stored is None:
                raise CheckpointError(
                    f"{self.path} is a bare state dict, without classes and normalization: "
                    "give a model.pt that cifar-cnn train has written"
                )
            classes = stored.classes
        if stored and stored.classes != classes:
            raise CheckpointError(
                f"{self.path} was trained on the classes {_names(stored.classes)}; "
                f"the data set has {_names(classes)}"
            )
        model = build_stored(self.path, self.settings, len(classes), self.state_dict, stored)
        set_training(model, False)
        return TrainedNetwork(
            move(model, self.device),
            classes,
            stored.normalization if stored else REFERENCE,
            self.settings,
            self.device,
            resolve_precision(self.settings.precision, self.device),
        )


def open_stored(file: Path | str, overrides: Mapping[str, Any] | None = None) -> StoredNetwork:
    """Read a checkpoint or a bare state dict, which has the settings of `reference`."""
    path = Path(file)
    settings, weights, checkpoint = read_stored(path, overrides or {})
    return StoredNetwork(path, settings, resolve_device(settings.device), weights, checkpoint)


def load_trained(file: Path | str, overrides: Mapping[str, Any] | None = None) -> TrainedNetwork:
    """Build the network of a checkpoint for the classes that it was trained on."""
    return open_stored(file, overrides).build()


def _names(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:3])
    return shown if len(classes) <= 3 else f"{shown} … ({len(classes)})"
