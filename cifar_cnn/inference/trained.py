"""From a file to a network that is ready for use; everything that uses one comes through here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cnn.data.dataset import Loading, Normalization, Split, measure, parse_normalization
from cifar_cnn.data.load import load_trained_on
from cifar_cnn.errors import CheckpointError, DataError, SettingsError
from cifar_cnn.inference.forward import predict_log_probabilities
from cifar_cnn.models.module import move, set_training
from cifar_cnn.runtime import resolve_device, resolve_precision
from cifar_cnn.settings import Settings
from cifar_cnn.storage.checkpoint import Checkpoint
from cifar_cnn.storage.network import build_stored, read_stored


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its weights, in evaluation mode on its device, and what it was trained for.

    `classes` are in index order; `notes` say what was assumed of a bare state dict.
    """

    model: nn.Module
    classes: tuple[str, ...]
    normalization: Normalization
    settings: Settings
    device: torch.device
    precision: str
    notes: tuple[str, ...] = ()

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
    """What a file holds, before the network is built; `settings` are those for its use.

    Args:
        checkpoint: the file's whole content; None for a bare state dict.
    """

    path: Path
    settings: Settings
    device: torch.device
    state_dict: Mapping[str, Tensor]
    checkpoint: Checkpoint | None
    normalization: str = "cifar10"

    def images(self, load: Callable[[Settings], Split]) -> Split:
        """Return what `load` makes of the settings; say whose folder it is that is not there.

        Of a part of the classes that the network was trained on, labels and classes become its own.
        """
        try:
            data = load(self.settings)
            own = self.checkpoint.classes if self.checkpoint else data.classes
            return data.among(own) if {*data.classes} < {*own} else data
        except DataError as error:
            folder = self.settings.data_dir
            is_own = self.checkpoint is not None and folder == self.checkpoint.settings.data_dir
            if not is_own or folder.is_absolute() or folder.exists():
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

    def build(
        self, classes: tuple[str, ...] | None = None, loading: Loading | None = None
    ) -> TrainedNetwork:
        """Build the network for the classes of the data that it is used on, or for its own.

        `loading` is told how the images are read that a bare state dict is normalized by.

        Raises:
            CheckpointError: it was trained on others, the weights are not the network's, or a bare
                state dict is to say which its classes are.
            RequestError: it cannot be built.
        """
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
        normalization = stored.normalization if stored else self._normalization(loading)
        return TrainedNetwork(
            move(model, self.device),
            classes,
            normalization,
            self.settings,
            self.device,
            resolve_precision(self.settings.precision, self.device),
            () if stored else (self._assumed(classes, normalization),),
        )

    def _normalization(self, loading: Loading | None) -> Normalization:
        if self.normalization == "dataset":
            return measure(load_trained_on(self.settings, loading)[0].images)
        return parse_normalization(self.normalization)

    def _assumed(self, classes: tuple[str, ...], normalization: Normalization) -> str:
        mean, std = (" ".join(f"{each:.4g}" for each in colors) for colors in normalization)
        height, width = self.settings.input_size
        return (
            f"{self.path} is a bare state dict: it is used with normalization "
            f"{self.normalization} (mean {mean}, std {std}), images of {height}x{width} "
            f"(height x width) and the classes, in this order, {_names(classes, 10)}"
        )


def open_stored(
    file: Path | str,
    overrides: Mapping[str, Any] | None = None,
    normalization: str | None = None,
) -> StoredNetwork:
    """Read a checkpoint or a bare state dict, which has the settings of `reference`.

    Args:
        file: `model.pt`, `best.pt`, `last.pt`, or a state dict saved by another program.
        overrides: settings in place of the checkpoint's: model, input_size, device …
        normalization: of a bare state dict: `cifar10` unless said, `dataset` for that of the
            training images, or MEAN/STD as `parse_normalization` takes it.

    Raises:
        CheckpointError: the file is unusable.
        RequestError: a setting is invalid, the device is not there, or a checkpoint, which has a
            normalization of its own, is given one.
    """
    path = Path(file)
    settings, weights, checkpoint = read_stored(path, overrides or {})
    if normalization not in {None, "dataset"}:
        parse_normalization(normalization or "")
    if checkpoint and normalization:
        raise SettingsError(
            f"{path} has the normalization that it was trained with: leave --normalization out, "
            "it is for a bare state dict"
        )
    device = resolve_device(settings.device)
    return StoredNetwork(path, settings, device, weights, checkpoint, normalization or "cifar10")


def load_trained(file: Path | str, overrides: Mapping[str, Any] | None = None) -> TrainedNetwork:
    """Build the network of a checkpoint for the classes that it was trained on."""
    return open_stored(file, overrides).build()


def _names(classes: tuple[str, ...], most: int = 3) -> str:
    shown = ", ".join(classes[:most])
    return shown if len(classes) <= most else f"{shown} … ({len(classes)})"
