import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_cnn.data import folder
from cifar_cnn.data.load import source_of
from cifar_cnn.errors import DataError
from cifar_cnn.settings import resolve_settings

SIZE = (32, 32)


def load_folder(root, name, size=SIZE, loading=None, **given):
    settings = {"dataset": "folder", "data_dir": root, "input_size": size, **given}
    settings = resolve_settings(settings)
    return source_of(settings).load(name, None, loading)


def test_images_labels_and_classes_follow_the_folders(image_folder):
    split = load_folder(image_folder, "train")
    assert split.classes == ("blue", "green", "red")
    assert split.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert split.notes == ()
    for index, path in ((0, "blue/000.png"), (35, "red/011.png")):
        pixels = np.asarray(Image.open(image_folder / "train" / path)).transpose(2, 0, 1)
        assert torch.equal(split.images[index], torch.from_numpy(pixels.copy()))


def test_the_second_load_decodes_nothing(image_folder, monkeypatch):
    first = load_folder(image_folder, "train")
    monkeypatch.setattr(folder, "read_images", None)
    second = load_folder(image_folder, "train")
    assert torch.equal(first.images, second.images)


def test_a_damaged_cache_is_made_anew(image_folder):
    first = load_folder(image_folder, "test")
    (cached,) = Path(os.environ["CIFAR_CNN_CACHE"]).iterdir()
    content = cached.read_bytes()
    for damaged in (content[:1000], content[:2000] + b"?" + content[2001:], b""):
        cached.write_bytes(damaged)
        assert torch.equal(load_folder(image_folder, "test").images, first.images)
        assert cached.read_bytes() == content


def test_changes_of_images_are_noted_also_from_the_cache(image_folder):
    test = image_folder / "test"
    Image.new("RGB", (50, 40), (9, 99, 200)).save(test / "blue/000.png")
    Image.new("RGBA", SIZE).save(test / "red/000.png")
    for _ in range(2):
        split = load_folder(image_folder, "test")
        assert split.images[0, :, 16, 16].tolist() == [9, 99, 200]
        assert split.notes == (
            f"resized 1 of 12 images in {test} to 32x32",
            f"laid 1 of 12 images in {test} on white: transparent",
        )


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "jpeg", "JPG", "webp", "bmp", "gif"])
def test_every_format_that_is_predicted_is_trained_on(image_folder, suffix):
    Image.new("RGB", SIZE, (200, 100, 40)).save(image_folder / f"train/blue/zzz.{suffix}")
    split = load_folder(image_folder, "train")
    assert len(split) == 37
    assert split.images[12].flatten(1).float().mean(1).tolist() == pytest.approx(
        [200, 100, 40], abs=3
    )


def test_nested_folders_are_read_in_the_order_of_torchvision(image_folder):
    from torchvision.datasets import ImageFolder

    for name in ("a/b", "a", "a-b", "c"):
        folder = image_folder / "train/green" / name
        folder.mkdir(parents=True, exist_ok=True)
        for shade in range(3):
            color = (shade, len(name), ord(name[-1]))
            Image.new("RGB", SIZE, color).save(folder / f"{shade}.png")
    (image_folder / "train/green/c/back").symlink_to(image_folder / "train/green")
    split = load_folder(image_folder, "train")
    (image_folder / "train/green/c/back").unlink()
    expected = ImageFolder(str(image_folder / "train"))
    assert split.classes == tuple(expected.classes)
    assert split.labels.tolist() == [label for _, label in expected]
    for pixels, (image, _) in zip(split.images, expected, strict=True):
        assert (pixels.numpy().transpose(1, 2, 0) == np.asarray(image)).all()


def test_hidden_names_are_neither_classes_nor_images_and_not_counted(image_folder):
    for name in (".ipynb_checkpoints", "blue/.ipynb_checkpoints", ".git", "__MACOSX"):
        (image_folder / "train" / name).mkdir()
        shutil.copy(image_folder / "train/red/000.png", image_folder / "train" / name / "0.png")
    for name in (".DS_Store", "Thumbs.db", "._x.jpg", ".hidden.png", "desktop.ini"):
        (image_folder / "train/blue" / name).write_bytes(b"no image")
        (image_folder / "train" / name).write_bytes(b"no image")
    split = load_folder(image_folder, "train")
    assert split.classes == ("blue", "green", "red")
    assert (len(split), split.notes) == (36, ())


def test_skipped_files_are_counted_in_one_line(image_folder):
    for name in ("notes.txt", "x.tif", "inner/y.svg"):
        path = image_folder / "train/blue" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    assert load_folder(image_folder, "train").notes == (
        f"skipped 3 files in {image_folder / 'train'}, not named as PNG, JPEG, WEBP, BMP or GIF",
    )


def swap(root, one, other):
    (root / one).rename(root / "x")
    (root / other).rename(root / one)
    (root / "x").rename(root / other)


def overwrite(root, one, other):
    with (root / one).open("r+b") as file:
        file.write((root / other).read_bytes())


@pytest.mark.parametrize(
    ("change", "one", "other"),
    [
        (swap, "blue", "red"),
        (swap, "blue/000.png", "red/000.png"),
        (overwrite, "blue/000.png", "red/000.png"),
    ],
)
def test_a_change_that_keeps_sizes_and_times_is_noticed(
    image_folder, monkeypatch, change, one, other
):
    root = image_folder / "train"
    for path in root.glob("*/*.png"):
        Image.open(path).save(path, "BMP")  # all of one size
        os.utime(path, (1_000_000, 1_000_000))
    load_folder(image_folder, "train")
    change(root, one, other)
    for path in root.glob("*/*.png"):
        if path.stat().st_mtime != 1_000_000:
            os.utime(path, (1_000_000, 1_000_000))
    found = load_folder(image_folder, "train").images
    monkeypatch.setenv("CIFAR_CNN_CACHE", str(image_folder / "other"))
    assert torch.equal(found, load_folder(image_folder, "train").images)


def test_class_names_are_compared_whatever_their_unicode_form(image_folder):
    for half, form in (("train", "NFC"), ("test", "NFD")):
        name = unicodedata.normalize(form, "grün")
        (image_folder / half / "green").rename(image_folder / half / name)
    train, test = (load_folder(image_folder, half) for half in ("train", "test"))
    assert train.classes == test.classes == ("blue", "grün", "red")
    (image_folder / "test" / unicodedata.normalize("NFC", "grün")).mkdir()
    with pytest.raises(DataError, match=r"two class folders in .*test are called 'grün'"):
        load_folder(image_folder, "test")


def test_a_file_name_that_is_not_utf8_is_read_and_such_a_class_is_refused(image_folder):
    path = image_folder / "test/blue" / os.fsdecode(b"z\xff.png")
    shutil.copy(image_folder / "test/red/000.png", path)
    assert len(load_folder(image_folder, "test")) == 13
    (image_folder / "test/red").rename(image_folder / "test" / os.fsdecode(b"\xff"))
    with pytest.raises(DataError, match="has a name that is not UTF-8: rename it"):
        load_folder(image_folder, "test")


def test_without_a_cache_images_are_decoded_each_time(image_folder, monkeypatch):
    monkeypatch.delenv("CIFAR_CNN_CACHE")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert len(load_folder(image_folder, "test")) == 12
    (image_folder / "file").write_text("not a folder")
    monkeypatch.setenv("CIFAR_CNN_CACHE", str(image_folder / "file" / "cache"))
    assert len(load_folder(image_folder, "test")) == 12


def scribble(file):
    file.write_text("this is no picture")
    return "green/001.png cannot be read: not a PNG, JPEG, WEBP, BMP or GIF image"


def empty(file):
    for each in file.parents[1].glob("*/*"):
        each.rename(each.with_suffix(".txt"))
    return "test/blue has no PNG, JPEG, WEBP, BMP or GIF images"


def dangling(file):
    file.unlink()
    file.symlink_to("nowhere")
    return r"001\.png"


@pytest.mark.parametrize("spoil", [scribble, empty, dangling], ids=lambda f: f.__name__)
def test_each_mistake_is_one_line_that_names_the_place(image_folder, spoil):
    message = spoil(image_folder / "test/green/001.png")
    with pytest.raises(DataError, match=message) as caught:
        load_folder(image_folder, "test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_class_may_lack_test_images(image_folder, is_there):
    shutil.rmtree(image_folder / "test/green")
    if is_there:
        (image_folder / "test/green").mkdir()
    split = load_folder(image_folder, "test")
    assert split.classes == ("blue", "green", "red")
    assert split.labels.unique().tolist() == [0, 2]
    assert split.notes == ("no test images of green: their accuracy is not measured",)


def test_images_that_lie_the_other_way_round_are_answered_with_the_swapped_size(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (48, 64)).save(tmp_path / "test" / name / "0.png")  # 64 high
    (note,) = load_folder(tmp_path, "test", (48, 64)).notes
    assert note.endswith("to 48x64 (height x width); --input-size 64x48 is their size")
    assert load_folder(tmp_path, "test", (64, 48)).notes == ()
    (note,) = load_folder(tmp_path, "test", (32, 64)).notes
    assert note.endswith("to 32x64 (height x width)")


def test_decoding_is_told_from_none_to_all_and_what_is_cached_is_not(image_folder):
    told = []
    for _ in range(2):
        load_folder(image_folder, "train", loading=lambda *what: told.append(what))
    assert {each[:2] + each[3:] for each in told} == {("decoding", image_folder / "train", 36)}
    done = [each[2] for each in told]
    assert done == sorted(set(done))
    assert (done[0], done[-1]) == (0, 36)
