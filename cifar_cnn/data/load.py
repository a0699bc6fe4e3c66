"""From settings to images in memory."""

import dataclasses

from cifar_cnn.data import cifar10, synthetic
from cifar_cnn.data.dataset import Loading, Split, resize
from cifar_cnn.data.folder import load_folder
from cifar_cnn.data.layout import LAYOUT, find_layout
from cifar_cnn.errors import DataError, SettingsError
from cifar_cnn.settings import Settings


def load_train(settings: Settings, loading: Loading | None = None) -> tuple[Split, Split | None]:
    """Return what a run trains on: `load_trained_on`, where its settings fit the images.

    Raises:
        DataError: images are missing or unusable, or there are none to evaluate on.
        SettingsError: the settings would cut a split from what is split, or leave nothing of one.
    """
    if settings.dataset == "folder":
        layout = find_layout(settings.data_dir)
        layout.check_for_training(settings.test_size, settings.val_size)
    elif settings.test_size:
        raise SettingsError(f"test_size is for --dataset folder, not for {settings.dataset}")
    return load_trained_on(settings, loading)


def load_trained_on(
    settings: Settings, loading: Loading | None = None
) -> tuple[Split, Split | None]:
    """Return the training images of a run, and the validation images if there are any.

    Those are in a folder `val`, or else cut from the training images where `val_size` asks for it:
    a folder that is split is taken as it is, whatever the run was trained on.

    Raises:
        DataError: images are missing or unusable.
        SettingsError: `val_size` leaves nothing to train on, or `test_size` a class without images.
    """
    has_val = settings.dataset == "folder" and "val" in find_layout(settings.data_dir).splits
    pool = _load(settings, "train", settings.limit_train, loading)
    if has_val:
        return pool, _load(settings, "val", settings.limit_eval, loading)
    if not settings.val_size:
        return pool, None
    if settings.val_size >= len(pool):
        raise SettingsError(
            f"val_size {settings.val_size} leaves no training image of {len(pool)}: make it smaller"
        )
    train, val = pool.cut(settings.val_size)
    return train, dataclasses.replace(val, name="val")


def load_test(
    settings: Settings, limit: int | None = None, loading: Loading | None = None
) -> Split:
    """Return the images to evaluate on, all of them or a balanced subset; `name` is their split's.

    Raises:
        DataError: images are missing or unusable.
    """
    return _load(settings, evaluation_split(settings), limit, loading)


def class_names(settings: Settings) -> tuple[str, ...]:
    """Return the classes of a data set in the order of their labels, without reading images.

    Raises:
        DataError: a folder is missing, or has no class folders.
    """
    if settings.dataset != "folder":
        return cifar10.CLASSES if settings.dataset == "cifar10" else synthetic.CLASSES
    names = find_layout(settings.data_dir).names
    if not names:
        raise DataError(f"folder {settings.data_dir} has no class folders: {LAYOUT}")
    return names


def evaluation_split(settings: Settings) -> str:
    """Return `test`, or `val` where a folder of images has that in its place.

    Raises:
        DataError: there is no such folder, or its splits have other classes.
    """
    return find_layout(settings.data_dir).evaluation if settings.dataset == "folder" else "test"


def _load(settings: Settings, name: str, limit: int | None, loading: Loading | None) -> Split:
    if settings.dataset == "folder":
        return load_folder(
            settings.data_dir,
            name,
            settings.input_size,
            test_size=settings.test_size,
            limit=limit,
            loading=loading,
        )
    if settings.dataset == "cifar10":
        split = cifar10.load_cifar10(settings.data_dir, name, loading)
    else:
        split = synthetic.draw_synthetic(name)
    files = tuple(f"{name}/{index:05}" for index in range(len(split)))
    named = dataclasses.replace(split, files=files, name=name)
    return resize(named.limited(limit), settings.input_size)
