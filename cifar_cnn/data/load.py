"""From settings to images in memory, whatever their source."""

from abc import ABC, abstractmethod
from dataclasses import replace
from importlib import import_module

from cifar_cnn.data.dataset import Progress, Split
from cifar_cnn.data.layout import SPLITS
from cifar_cnn.errors import SettingsError, did_you_mean
from cifar_cnn.settings import Settings


class DataSource(ABC):
    """The images of the settings; `data/<name>.py` has one as SOURCE for each name in `SOURCES`."""

    classes: tuple[str, ...]
    """In the order of their labels, known without reading images."""
    splits: tuple[str, ...] = ("train", "test")
    """Those that the source has, of train, val and test."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def load(self, name: str, limit: int | None, progress: Progress | None) -> Split:
        """Return the images of a split in the size of the settings, `limit` of them at most."""

    def check(self) -> None:
        """Raise an error unless a run can be trained and evaluated on the images."""
        if self.settings.test_size:
            raise SettingsError(
                f"test_size is for class folders alone, and --dataset {self.settings.dataset} has "
                "test images of its own: leave it out"
            )


class FixedSource(DataSource):
    """A source whose images have a size of their own."""

    @abstractmethod
    def read(self, name: str, progress: Progress | None) -> Split:
        """Return a whole split."""

    def load(self, name: str, limit: int | None, progress: Progress | None) -> Split:
        """Read the split, then limit and resize it."""
        split = self.read(name, progress)
        files = tuple(f"{name}/{index:05}" for index in range(len(split)))
        split = replace(split, files=files, name=name)
        return split.limited(limit).resized(self.settings.input_size)


def source_of(settings: Settings) -> DataSource:
    """Return the source that the settings name."""
    source: DataSource = import_module(f"cifar_cnn.data.{settings.dataset}").SOURCE(settings)
    return source


def load_train(settings: Settings, progress: Progress | None = None) -> tuple[Split, Split | None]:
    """Check that a run can use the source, then return its images as `load_trained_on` does."""
    source_of(settings).check()
    return load_trained_on(settings, progress)


def load_trained_on(
    settings: Settings, progress: Progress | None = None
) -> tuple[Split, Split | None]:
    """Return the training images of a run, and its validation images, if any.

    These are the source's split `val`; without one, `val_size` cuts them from the training images.
    """
    source = source_of(settings)
    pool = source.load("train", settings.limit_train, progress)
    if "val" in source.splits:
        return pool, source.load("val", settings.limit_eval, progress)
    if not settings.val_size:
        return pool, None
    if settings.val_size >= len(pool):
        raise SettingsError(
            f"val_size {settings.val_size} leaves no training image of {len(pool)}: make it smaller"
        )
    train, val = pool.cut(settings.val_size)
    return train, replace(val, name="val")


def load_split(
    settings: Settings, name: str | None, limit: int | None, progress: Progress | None
) -> Split:
    """Return a split of a run, or a balanced subset; None is the one to evaluate on.

    That is `test`, or `val` if the source has that in its place.
    """
    if name is not None and name not in SPLITS:
        hint = did_you_mean(name, SPLITS)
        raise SettingsError(f"unknown split {name!r}{hint}: choose from {', '.join(SPLITS)}")
    source = source_of(settings)
    default = "val" if "val" in source.splits and "test" not in source.splits else "test"
    if name in {None, default}:
        return source.load(default, limit, progress)
    if name == "test":
        raise SettingsError(
            f"there is no test split: {settings.data_dir} has val/ in its place; leave --split out"
        )
    train, val = load_trained_on(settings, progress)
    split = train if name == "train" else val
    if split is None:
        raise SettingsError("there is no validation split: the run was trained without --val-size")
    return split.limited(limit)


def load_test(
    settings: Settings, limit: int | None = None, progress: Progress | None = None
) -> Split:
    """Return the images to evaluate on, or a balanced subset; `name` is their split's."""
    return load_split(settings, None, limit, progress)
