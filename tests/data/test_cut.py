"""Class folders alone, of which test_size makes a part the test images."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_cnn.data.folder import load_folder
from cifar_cnn.data.load import load_test, load_train
from cifar_cnn.errors import DataError, SettingsError

SIZE = (32, 32)
UNEQUAL = {"blue": 24, "green": 12, "red": 4}


@pytest.fixture
def unsplit(image_folder):
    """Class folders alone, of 24, 12 and 4 images."""
    root = image_folder.with_name("unsplit")
    for name, count in UNEQUAL.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            source = image_folder / "train" / name / f"{index % 12:03}.png"
            shutil.copy(source, root / name / f"{index:03}.png")
    return root


def counts(split):
    return torch.bincount(split.labels).tolist()


@pytest.mark.parametrize(
    ("test_size", "expected"),
    [(0.25, [6, 3, 1]), (0.5, [12, 6, 2]), (0.2, [5, 2, 1]), (0.75, [18, 9, 3])],
)
def test_class_folders_alone_are_cut_by_share(unsplit, test_size, expected):
    train, test = (load_folder(unsplit, n, SIZE, test_size=test_size) for n in ("train", "test"))
    assert (train.name, test.name) == ("train", "test")
    assert train.classes == test.classes == ("blue", "green", "red")
    assert counts(test) == expected
    assert sorted(train.files + test.files) == sorted(map(str, unsplit.glob("*/*.png")))
    for split in (train, test):
        for image, file in zip(split.images, split.files, strict=True):
            pixels = np.asarray(Image.open(file)).transpose(2, 0, 1)
            assert (image.numpy() == pixels).all()


def test_the_cut_does_not_depend_on_the_seed_or_the_place(unsplit, small_settings):
    files = []
    for seed, name in ((1, "unsplit"), (2, "unsplit"), (1, "moved")):
        root = unsplit.with_name(name)
        if not root.exists():
            unsplit.rename(root)
        settings = small_settings(data_dir=root, test_size=0.25, seed=seed)
        files.append([file.removeprefix(f"{root}/") for file in load_test(settings).files])
    assert files[0] == files[1] == files[2]


def names_in(root, test_size=0.25):
    files = load_folder(root, "test", SIZE, test_size=test_size).files
    return {file.removeprefix(f"{root}/") for file in files}


@pytest.mark.parametrize("name", ["a.png", "zz.png", "007b.png", "new/000.png"])
def test_a_file_more_or_less_moves_one_other_at_most(unsplit, name):
    before = names_in(unsplit)
    added = unsplit / "blue" / name
    added.parent.mkdir(exist_ok=True)
    shutil.copy(unsplit / "red" / "000.png", added)
    after = names_in(unsplit)
    assert len(after) == len(before) == 10
    assert len(before - after) <= 1
    assert {each for each in before ^ after if not each.startswith("blue/")} == set()
    added.unlink()
    assert names_in(unsplit) == before
    (unsplit / "green" / "005.png").unlink()
    after = names_in(unsplit)
    assert len(before - after - {"green/005.png"}) <= 1
    assert {each for each in before ^ after if not each.startswith("green/")} == set()


def test_a_larger_share_keeps_the_images_of_a_smaller_one(unsplit):
    assert names_in(unsplit, 0.25) < names_in(unsplit, 0.5)


def test_the_cut_is_by_name_in_whatever_form_a_system_writes_it(unsplit):
    found = []
    for form in ("NFC", "NFD"):
        for image in sorted((unsplit / "blue").iterdir()):
            name = unicodedata.normalize(form, f"ü{image.stem[-3:]}.png")
            image.rename(image.with_name(name))
        split = load_folder(unsplit, "test", SIZE, test_size=0.25)
        names = {unicodedata.normalize("NFC", Path(file).name) for file in split.files}
        found.append((names, split.test_sha256))
    assert found[0] == found[1]


def test_limits_and_validation_are_cut_from_what_the_test_leaves(unsplit, small_settings):
    settings = small_settings(data_dir=unsplit, test_size=0.25, val_size=6, limit_train=20)
    train, val = load_train(settings)
    test = load_test(settings, 5)
    assert (len(train), len(val), len(test)) == (14, 6, 5)
    assert len({*train.files, *val.files, *test.files}) == 25


@pytest.mark.parametrize(
    ("test_size", "message"),
    [
        (0.001, r"red has too few .* split \(4\): test_size 0\.001 leaves none .* for the test"),
        (0.1, r"red has too few .* split \(4\): test_size 0\.1 leaves none .* for the test"),
        (
            0.95,
            r"red has too few .* split \(4\): test_size 0\.95 leaves none .* for training",
        ),
        (1e-9, r"too few images to split"),
    ],
)
def test_a_class_that_is_too_small_to_split_is_named(unsplit, test_size, message):
    with pytest.raises(SettingsError, match=message) as caught:
        load_folder(unsplit, "train", SIZE, test_size=test_size)
    assert "\n" not in str(caught.value)


def test_a_class_of_one_image_is_never_split(unsplit):
    for image in [*(unsplit / "red").iterdir()][1:]:
        image.unlink()
    for test_size in (0.01, 0.5, 0.99):
        with pytest.raises(DataError, match=r"red has too few images to split \(1\): each class"):
            load_folder(unsplit, "test", SIZE, test_size=test_size)


def test_a_class_may_be_called_like_a_split(unsplit):
    (unsplit / "red").rename(unsplit / "train")
    split = load_folder(unsplit, "train", SIZE, test_size=0.25)
    assert split.classes == ("blue", "green", "train")
    assert counts(split) == [18, 9, 3]
