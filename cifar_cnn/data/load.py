"""From settings to images in memory."""

import dataclasses

from cifar_cnn.data.cifar10 import load_cifar10
from cifar_cnn.data.dataset import Split
from cifar_cnn.data.folder import load_folder
from cifar_cnn.data.resize import resize
from cifar_cnn.data.synthetic import draw_synthetic
from cifar_cnn.errors import SettingsError
from cifar_cnn.settings import Settings


def load_train(settings: Settings) -> tuple[Split, Split | None]:
    """Return the training images, and the validation images cut from them if `val_size` asks.

    Raises:
        DataError: images are missing or unusable.
        SettingsError: `val_size` leaves nothing to train on.
    """
    pool = _load(settings, "train").limited(settings.limit_train)
    if not settings.val_size:
        return pool, None
    if settings.val_size >= len(pool):
        raise SettingsError(
            f"val_size {settings.val_size} leaves no training image of {len(pool)}: make it smaller"
        )
    return pool.cut(settings.val_size)


def load_test(settings: Settings) -> Split:
    """Return the test images, all of them.

    Raises:
        DataError: images are missing or unusable.
    """
    return _load(settings, "test")


def _load(settings: Settings, name: str) -> Split:
    if settings.dataset == "folder":
        return load_folder(settings.data_dir, name, settings.input_size)
    if settings.dataset == "cifar10":
        split = load_cifar10(settings.data_dir, name)
    else:
        split = draw_synthetic(name)
    files = tuple(f"{name}/{index:05}" for index in range(len(split)))
    return resize(dataclasses.replace(split, files=files), settings.input_size)
