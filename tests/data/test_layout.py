"""Folders of images that are split by folders, or by `test_size`."""

import shutil
import unicodedata
from pathlib import Path

import pytest
import torch

from cifar_cnn import plan_run, train
from cifar_cnn.data.load import load_test, load_train
from cifar_cnn.errors import CheckpointError, DataError, SettingsError


def rearrange(root, changes):
    """Change a folder: `-PATTERN` deletes, `A>B` moves, `A+B` copies."""
    for change in changes.split():
        if change == "-.":
            shutil.rmtree(root)
        elif change.startswith("-"):
            for path in [*root.glob(change[1:])]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif ">" in change:
            source, target = change.split(">")
            (root / source).rename(root / target)
        else:
            source, target = change.split("+")
            shutil.copytree(root / source, root / target)


@pytest.fixture
def unsplit(image_folder):
    """Class folders alone, of 24, 12 and 4 images."""
    root = image_folder.with_name("unsplit")
    shutil.copytree(image_folder / "train", root)
    for image in [*root.glob("blue/*")]:
        shutil.copy(image, image.with_stem(f"{int(image.stem) + 12:03}"))
    rearrange(root, "-red/00[4-9].png -red/01?.png")
    return root


def test_val_in_the_place_of_test_is_the_split_to_evaluate_on(small_settings, image_folder):
    rearrange(image_folder, "test>val")
    train, val = load_train(small_settings())
    own = load_test(small_settings())
    assert (train.name, val.name, own.name) == ("train", "val", "val")
    assert (len(train), len(val)) == (36, 12)
    assert val.files == own.files
    assert val.classes == train.classes


def test_val_beside_test_is_the_validation_split(small_settings, image_folder):
    rearrange(image_folder, "test+val -val/*/003.png")
    splits = *load_train(small_settings()), load_test(small_settings())
    assert [(each.name, len(each)) for each in splits] == [("train", 36), ("val", 9), ("test", 12)]


NOTHING = "images does not exist: expected train/<class>"
ALONE = "class folders alone, and"
MISTAKES = [
    (
        "-test train/blue>blue train/green>green train/red>red -train",
        {},
        DataError,
        r"class folders alone \(blue, green, red\): train with --test-size 0\.2",
    ),
    ("", {"test_size": 0.2}, SettingsError, f"{ALONE} .* has test/: leave"),
    ("test>val", {"test_size": 0.2}, SettingsError, f"{ALONE} .* has val/: leave"),
    ("test+val", {"val_size": 3}, SettingsError, "val_size 3 would cut .* has val/: leave it out"),
    ("test>Validation", {}, DataError, "test/ nor val/ .* train/: rename .*Validation to val$"),
    (
        "train>Train test>Test",
        {},
        DataError,
        "neither train/ nor test/: rename .*Test to test and .*Train to train",
    ),
    ("-test", {}, DataError, "train/: add one of .* --data-dir .*train --test-size 0.2$"),
    ("test>val val/red>val/rot", {}, DataError, "class 'rot' is in .*val but not in train/"),
    (
        "",
        {"dataset": "synthetic", "test_size": 0.2},
        SettingsError,
        f"{ALONE} --dataset synthetic has test images",
    ),
    ("-test -train", {}, DataError, "images has no class folders: expected train/<class>"),
    ("-.", {}, DataError, NOTHING),
    ("-train/green", {}, DataError, "class 'green' is in .*test but not in train/"),
    ("-train/red/*", {}, DataError, "train/red has no PNG, JPEG, WEBP, BMP or GIF images"),
]


@pytest.mark.parametrize(("changes", "given", "kind", "message"), MISTAKES)
def test_each_mistake_is_one_line_before_any_image_is_decoded(
    small_settings, image_folder, monkeypatch, changes, given, kind, message
):
    rearrange(image_folder, changes)
    monkeypatch.setattr("cifar_cnn.data.folder.read_images", None)
    with pytest.raises(kind, match=message) as caught:
        load_train(small_settings(**given))
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_be_meant_for_a_split_is_told(small_settings, image_folder):
    rearrange(image_folder, "test+valid")
    split, _ = load_train(small_settings())
    assert split.notes == (f"rename {image_folder / 'valid'} to val, or it is not used",)
    assert len(split) == 36


def test_only_what_a_limit_leaves_is_decoded(image_folder, small_settings, monkeypatch):
    whole = load_train(small_settings())[0], load_test(small_settings())
    monkeypatch.setattr("cifar_cnn.data.folder.read_images", None)
    cached, _ = load_train(small_settings(limit_train=8))
    assert torch.equal(cached.images, whole[0].limited(8).images)
    monkeypatch.undo()
    monkeypatch.setenv("CIFAR_CNN_CACHE", str(image_folder.with_name("other")))
    expected = whole[0].limited(7), whole[1].limited(5)
    needed = {*expected[0].files, *expected[1].files}
    for image in image_folder.glob("*/*/*.png"):
        if str(image) not in needed:
            image.write_bytes(b"unreadable")
    found = load_train(small_settings(limit_train=7))[0], load_test(small_settings(), 5)
    for split, own in zip(found, expected, strict=True):
        assert split.files == own.files
        assert torch.equal(split.images, own.images)
        assert torch.equal(split.labels, own.labels)


def test_a_run_does_not_go_on_with_another_split_to_evaluate_on(
    small_settings, image_folder, tmp_path
):
    events = []
    stop = {"listeners": [events.append], "should_stop": lambda: len(events) > 7}
    run = train(small_settings(), tmp_path / "run", report=False, **stop).run
    rearrange(image_folder, "test+val")
    plan = plan_run({}, resume=run)
    with pytest.raises(CheckpointError, match=r"evaluated on test images, and .* has val images"):
        train(plan.settings, plan.directory, checkpoint=plan.checkpoint)


@pytest.mark.parametrize(
    ("test_size", "expected"),
    [(0.25, [6, 3, 1]), (0.5, [12, 6, 2]), (0.2, [5, 2, 1]), (0.75, [18, 9, 3])],
)
def test_class_folders_alone_are_cut_by_share(unsplit, small_settings, test_size, expected):
    (unsplit / "red").rename(unsplit / "train")  # a class may be called like a split
    settings = small_settings(data_dir=unsplit, test_size=test_size)
    (train, _), test = load_train(settings), load_test(settings)
    assert (train.name, test.name) == ("train", "test")
    assert train.classes == test.classes == ("blue", "green", "train")
    assert torch.bincount(test.labels).tolist() == expected
    assert sorted(train.files + test.files) == sorted(map(str, unsplit.glob("*/*.png")))


@pytest.fixture
def names_in(small_settings):
    """The names of the test images below a folder."""

    def names(root, test_size=0.25, seed=0):
        settings = small_settings(data_dir=root, test_size=test_size, seed=seed)
        return {file.removeprefix(f"{root}/") for file in load_test(settings).files}

    return names


def test_the_cut_depends_on_neither_seed_nor_place_and_a_larger_one_has_it(unsplit, names_in):
    first = names_in(unsplit, seed=1)
    assert first == names_in(unsplit, seed=2)
    assert first < names_in(unsplit, 0.5)
    assert first == names_in(unsplit.rename(unsplit.with_name("moved")))


@pytest.mark.parametrize("name", ["a.png", "zz.png", "007b.png", "new/000.png"])
def test_a_file_more_or_less_moves_one_other_at_most(unsplit, names_in, name):
    before = names_in(unsplit)
    added = unsplit / "blue" / name
    added.parent.mkdir(exist_ok=True)
    shutil.copy(unsplit / "red" / "000.png", added)
    after = names_in(unsplit)
    assert len(after) == len(before) == 10
    assert len(before - after) <= 1
    assert all(each.startswith("blue/") for each in before ^ after)
    added.unlink()
    (unsplit / "green" / "005.png").unlink()
    after = names_in(unsplit)
    assert len(before - after - {"green/005.png"}) <= 1
    assert all(each.startswith("green/") for each in before ^ after)


def test_the_cut_is_by_name_in_whatever_form_a_system_writes_it(unsplit, small_settings):
    found = []
    for form in ("NFC", "NFD"):
        for image in sorted((unsplit / "blue").iterdir()):
            name = unicodedata.normalize(form, f"ü{image.stem[-3:]}.png")
            image.rename(image.with_name(name))
        split = load_test(small_settings(data_dir=unsplit, test_size=0.25))
        names = {unicodedata.normalize("NFC", Path(file).name) for file in split.files}
        found.append((names, split.test_sha256))
    assert found[0] == found[1]


def test_limits_and_validation_are_cut_from_what_the_test_leaves(unsplit, small_settings):
    settings = small_settings(data_dir=unsplit, test_size=0.25, val_size=6, limit_train=20)
    train, val = load_train(settings)
    test = load_test(settings, 5)
    assert (len(train), len(val), len(test)) == (14, 6, 5)
    assert len({*train.files, *val.files, *test.files}) == 25


@pytest.mark.parametrize(("test_size", "lacking"), [(0.1, "the test"), (0.95, "training")])
def test_a_class_that_is_too_small_to_split_is_named(unsplit, small_settings, test_size, lacking):
    message = rf"red has too few .* \(4\): test_size {test_size:g} leaves none .* for {lacking}"
    with pytest.raises(SettingsError, match=message):
        load_train(small_settings(data_dir=unsplit, test_size=test_size))
    rearrange(unsplit, "-red/00[123].png")
    with pytest.raises(DataError, match=r"red has too few images to split \(1\): each class"):
        load_test(small_settings(data_dir=unsplit, test_size=test_size))
