"""Folders of images that are split otherwise than into train and test, or not at all."""

import shutil

import pytest
import torch

from cifar_cnn import plan_run, train
from cifar_cnn.data.folder import load_folder
from cifar_cnn.data.load import load_test, load_train
from cifar_cnn.errors import CheckpointError, DataError, SettingsError

SIZE = (32, 32)


@pytest.fixture
def with_val(image_folder):
    (image_folder / "test").rename(image_folder / "val")
    return image_folder


def test_val_in_the_place_of_test_is_the_split_to_evaluate_on(small_settings, with_val):
    settings = small_settings()
    train, val = load_train(settings)
    own = load_test(settings)
    assert (train.name, val.name, own.name) == ("train", "val", "val")
    assert (len(train), len(val)) == (36, 12)
    assert val.files == own.files
    assert val.classes == train.classes


def test_val_beside_test_is_the_validation_split(small_settings, image_folder):
    shutil.copytree(image_folder / "test", image_folder / "val")
    for image in (image_folder / "val").glob("*/003.png"):
        image.unlink()
    train, val = load_train(small_settings())
    test = load_test(small_settings())
    assert [(each.name, len(each)) for each in (train, val, test)] == [
        ("train", 36),
        ("val", 9),
        ("test", 12),
    ]


def only_classes(root):
    shutil.rmtree(root / "test")
    for folder in (root / "train").iterdir():
        folder.rename(root / folder.name)
    (root / "train").rmdir()
    return {}, DataError, r"class folders alone \(blue, green, red\): train with --test-size 0\.2"


def there_is_test(root):
    return (
        {"test_size": 0.2},
        SettingsError,
        "is for class folders alone, and .* has test/: leave",
    )


def there_is_val(root):
    (root / "test").rename(root / "val")
    return {"test_size": 0.2}, SettingsError, "is for class folders alone, and .* has val/: leave"


def val_twice(root):
    shutil.copytree(root / "test", root / "val")
    return {"val_size": 3}, SettingsError, "val_size 3 would cut .* has val/: leave it out"


def called_valid(root):
    (root / "test").rename(root / "valid")
    return {}, DataError, "neither test/ nor val/ beside train/: rename .*valid to val$"


def called_validation(root):
    (root / "test").rename(root / "Validation")
    return {}, DataError, "neither test/ nor val/ beside train/: rename .*Validation to val$"


def capitals(root):
    for name in ("train", "test"):
        (root / name).rename(root / name.title())
    return {"test_size": 0.2}, DataError, "neither train/ nor test/: rename .*Test to test"


def train_alone(root):
    shutil.rmtree(root / "test")
    return {}, DataError, "neither .* train/: add one of .* --data-dir .*train --test-size 0.2$"


def other_class_in_val(root):
    (root / "test").rename(root / "val")
    (root / "val" / "red").rename(root / "val" / "rot")
    return {}, DataError, "class 'rot' is in .*val but not in train/"


def of_another_data_set(root):
    return {"dataset": "synthetic", "test_size": 0.2}, SettingsError, "is for --dataset folder, not"


def images_alone(root):
    for image in (root / "test" / "red").iterdir():
        image.rename(root / image.name)
    shutil.rmtree(root / "test")
    shutil.rmtree(root / "train")
    return {"test_size": 0.2}, DataError, "train has no class folders: expected train/<class>"


MISTAKES = [
    only_classes,
    there_is_test,
    there_is_val,
    val_twice,
    called_valid,
    called_validation,
    capitals,
    train_alone,
    other_class_in_val,
    of_another_data_set,
    images_alone,
]


@pytest.mark.parametrize("spoil", MISTAKES, ids=lambda f: f.__name__)
def test_each_mistake_is_one_line_before_any_image_is_decoded(
    small_settings, image_folder, monkeypatch, spoil
):
    given, kind, message = spoil(image_folder)
    monkeypatch.setattr("cifar_cnn.data.folder.read_images", None)
    with pytest.raises(kind, match=message) as caught:
        load_train(small_settings(**given))
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_be_meant_for_a_split_is_told(image_folder):
    shutil.copytree(image_folder / "test", image_folder / "valid")
    (image_folder / "raw" / "red").mkdir(parents=True)
    split = load_folder(image_folder, "train", SIZE)
    assert split.notes == (f"rename {image_folder / 'valid'} to val, or it is not used",)
    assert len(split) == 36


def test_only_what_a_limit_leaves_is_decoded(image_folder, small_settings, monkeypatch):
    pool, _ = load_train(small_settings())
    expected = pool.limited(7), load_test(small_settings()).limited(5)
    monkeypatch.setenv("CIFAR_CNN_CACHE", str(image_folder.with_name("other")))
    needed = {*expected[0].files, *expected[1].files}
    for image in image_folder.glob("*/*/*.png"):
        if str(image) not in needed:
            image.write_bytes(b"unreadable")
    found = load_train(small_settings(limit_train=7))[0], load_test(small_settings(), 5)
    for split, own in zip(found, expected, strict=True):
        assert split.files == own.files
        assert torch.equal(split.images, own.images)
        assert torch.equal(split.labels, own.labels)


def test_a_limited_split_is_taken_from_the_cache_of_the_whole(image_folder, monkeypatch):
    whole = load_folder(image_folder, "train", SIZE)
    monkeypatch.setattr("cifar_cnn.data.folder.read_images", None)
    part = load_folder(image_folder, "train", SIZE, limit=8)
    assert torch.equal(part.images, whole.limited(8).images)


def test_decoding_is_told_from_none_to_all_and_what_is_cached_is_not(image_folder):
    told = []
    for _ in range(2):
        load_folder(image_folder, "train", SIZE, loading=lambda *what: told.append(what))
    assert {each[:2] + each[3:] for each in told} == {("decoding", image_folder / "train", 36)}
    done = [each[2] for each in told]
    assert done == sorted(set(done))
    assert (done[0], done[-1]) == (0, 36)


def test_a_run_does_not_go_on_with_another_split_to_evaluate_on(
    small_settings, image_folder, tmp_path
):
    events = []
    stop = {"listeners": [events.append], "should_stop": lambda: len(events) > 7}
    run = train(small_settings(), tmp_path / "run", report=False, **stop).run
    shutil.copytree(image_folder / "test", image_folder / "val")
    plan = plan_run({}, resume=run)
    with pytest.raises(CheckpointError, match=r"evaluated on test images, and .* has val images"):
        train(plan.settings, plan.directory, checkpoint=plan.checkpoint)
