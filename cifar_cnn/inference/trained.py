"""Trained networks that are used on images, with what they need of a data set."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cifar_cnn.data.dataset import Normalization, Progress, Split, measure, parse_normalization
from cifar_cnn.data.layout import SPLITS
from cifar_cnn.data.load import class_names, evaluation_split, load_test, load_trained_on
from cifar_cnn.errors import CheckpointError, DataError, SettingsError, did_you_mean
from cifar_cnn.runtime import resolve_device
from cifar_cnn.settings import Settings
from cifar_cnn.storage.network import Network, open_network


def open_trained(
    file: Path | str,
    overrides: Mapping[str, Any] | None = None,
    *,
    allow_bare: bool = True,
    normalization: str | None = None,
    progress: Progress | None = None,
) -> Network:
    """Return the network of a run or file with its weights, built on the device of its settings.

    A bare state dict takes its classes from the data set of its settings, and `normalization`:
    `cifar10` unless given, `dataset` for that of the training images, or MEAN/STD.
    """
    network = open_network(Path(file), overrides)
    network = replace(network, device=resolve_device(network.settings.device))
    if network.checkpoint is None and allow_bare:
        network = _complete(network, normalization or "cifar10", progress)
    elif network.checkpoint is None:
        raise CheckpointError(
            f"{network.file} is a bare state dict, without classes and normalization: "
            "give a model.pt that cifar-cnn train has written"
        )
    elif normalization:
        raise SettingsError(
            f"{network.file} has the normalization that it was trained with: leave --normalization "
            "out, it is for a bare state dict"
        )
    _ = network.model  # whatever is wrong with it is said before images are read
    return network


def load_images(
    network: Network, split: str | None, limit: int | None, progress: Progress | None
) -> Split:
    """Return a split of the network's data set, the test images by default, for its own classes."""
    settings, own, stored = network.settings, network.classes, network.checkpoint
    try:
        data = _load_split(settings, split, limit, progress)
    except DataError as error:
        folder = settings.data_dir
        is_own = stored is not None and folder == stored.settings.data_dir
        if not is_own or folder.is_absolute() or folder.exists():
            raise
        raise DataError(
            f"{error}; {network.file} was trained with it, from another folder perhaps: "
            "--data-dir says where it is from here"
        ) from error
    if {*data.classes} < {*own}:
        data = data.among(own)
    if data.classes != own:
        raise CheckpointError(
            f"{network.file} was trained on the classes {_names(own)}; "
            f"the data set has {_names(data.classes)}"
        )
    return data


def _load_split(
    settings: Settings, split: str | None, limit: int | None, progress: Progress | None
) -> Split:
    if split is not None and split not in SPLITS:
        hint = did_you_mean(split, SPLITS)
        raise SettingsError(f"unknown split {split!r}{hint}: choose from {', '.join(SPLITS)}")
    own = evaluation_split(settings)
    if split in {None, own}:
        return load_test(settings, limit, progress)
    if split == "test":
        raise SettingsError(
            f"there is no test split: {settings.data_dir} has val/ in its place; leave --split out"
        )
    train, val = load_trained_on(settings, progress)
    if split == "train":
        return train.limited(limit)
    if val is None:
        raise SettingsError("there is no validation split: the run was trained without --val-size")
    return val.limited(limit)


def notes_on(data: Split, network: Network) -> tuple[str, ...]:
    """Return a warning where `test_size` makes other files the test images than in training."""
    trained = network.checkpoint and network.checkpoint.test_sha256
    if not trained or data.test_sha256 in {None, trained}:
        return ()
    settings = network.settings
    return (
        f"the files in {settings.data_dir} that test_size {settings.test_size:g} "
        "makes the test images are not those of the training: some may have been trained on",
    )


def _complete(network: Network, name: str, progress: Progress | None) -> Network:
    """Give a bare state dict classes and a normalization, and say what was assumed."""
    settings = network.settings
    given = None if name == "dataset" else parse_normalization(name)
    classes = class_names(settings)
    normalization = given or measure(load_trained_on(settings, progress)[0].images)
    note = _assumed(network.file, settings, classes, name, normalization)
    return replace(network, classes=classes, normalization=normalization, notes=(note,))


def _assumed(
    file: Path | None,
    settings: Settings,
    classes: tuple[str, ...],
    name: str,
    normalization: Normalization,
) -> str:
    mean, std = (" ".join(f"{each:.4g}" for each in colors) for colors in normalization)
    height, width = settings.input_size
    return (
        f"{file} is a bare state dict: it is used with normalization "
        f"{name} (mean {mean}, std {std}), images of {height}x{width} "
        f"(height x width) and the classes, in this order, {_names(classes, 10)}"
    )


def _names(classes: tuple[str, ...], most: int = 3) -> str:
    shown = ", ".join(classes[:most])
    return shown if len(classes) <= most else f"{shown} … ({len(classes)})"
