import os
import shutil
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_cnn.data import dataset, folder, images
from cifar_cnn.data.cache import cache_folder
from cifar_cnn.data.folder import load_folder
from cifar_cnn.errors import DataError

SIZE = (32, 32)


def test_images_labels_and_classes_follow_the_folders(image_folder):
    split = load_folder(image_folder, "train", SIZE)
    assert split.classes == ("blue", "green", "red")
    assert split.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert split.notes == ()
    for index, path in ((0, "blue/000.png"), (35, "red/011.png")):
        pixels = np.asarray(Image.open(image_folder / "train" / path)).transpose(2, 0, 1)
        assert torch.equal(split.images[index], torch.from_numpy(pixels.copy()))


def test_the_second_load_decodes_nothing(image_folder, monkeypatch):
    first = load_folder(image_folder, "train", SIZE)
    monkeypatch.setattr(folder, "read_images", None)
    second = load_folder(image_folder, "train", SIZE)
    assert torch.equal(first.images, second.images)


def test_a_changed_file_is_decoded_again(image_folder):
    load_folder(image_folder, "test", SIZE)
    Image.new("RGB", SIZE, (1, 2, 3)).save(image_folder / "test/red/003.png")
    assert load_folder(image_folder, "test", SIZE).images[-1, :, 0, 0].tolist() == [1, 2, 3]


def test_a_damaged_cache_is_made_anew(image_folder):
    first = load_folder(image_folder, "test", SIZE)
    (cached,) = cache_folder().iterdir()
    content = cached.read_bytes()
    for damaged in (content[:1000], content[:2000] + b"?" + content[2001:], b""):
        cached.write_bytes(damaged)
        assert torch.equal(load_folder(image_folder, "test", SIZE).images, first.images)
        assert cached.read_bytes() == content


def test_a_cache_that_cannot_be_written_does_not_stop_the_load(image_folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CIFAR_CNN_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load_folder(image_folder, "test", SIZE)) == 12


def test_other_sizes_are_resized_and_said_once_also_from_the_cache(image_folder):
    Image.new("RGB", (50, 40), (9, 99, 200)).save(image_folder / "test/blue/000.png")
    for _ in range(2):
        split = load_folder(image_folder, "test", SIZE)
        assert split.images[0, :, 16, 16].tolist() == [9, 99, 200]
        assert split.notes == (
            f"1 of 12 images in {image_folder / 'test'} is not 32x32 and was resized",
        )


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_any_mode_becomes_rgb(image_folder, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", SIZE, (255, 255, 255)).convert(mode).save(
        image_folder / f"test/blue/zzz.{suffix}"
    )
    split = load_folder(image_folder, "test", SIZE)
    assert split.images.shape == (13, 3, 32, 32)
    assert split.images[4].min() >= 254


def test_a_palette_with_transparency_is_laid_on_white_without_a_warning_and_said_once(image_folder):
    image = Image.new("P", SIZE)
    image.putpalette([200, 100, 50] * 256)
    image.putpixel((1, 0), 2)
    image.save(image_folder / "test/blue/zzz.png", transparency=b"\x00\x80")
    for _ in range(2):
        split = load_folder(image_folder, "test", SIZE)
        assert split.images[4, :, 0, 0].tolist() == [255, 255, 255]
        assert split.images[4, :, 0, 1].tolist() == [200, 100, 50]
        assert split.notes == (
            f"1 of 13 images in {image_folder / 'test'} is transparent and was laid on white",
        )


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "jpeg", "JPG", "webp", "bmp", "gif"])
def test_every_format_that_is_predicted_is_trained_on(image_folder, suffix):
    Image.new("RGB", SIZE, (200, 100, 40)).save(image_folder / f"train/blue/zzz.{suffix}")
    split = load_folder(image_folder, "train", SIZE)
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
    split = load_folder(image_folder, "train", SIZE)
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
    split = load_folder(image_folder, "train", SIZE)
    assert split.classes == ("blue", "green", "red")
    assert (len(split), split.notes) == (36, ())


def test_skipped_files_are_counted_in_one_line(image_folder):
    for name in ("notes.txt", "x.tif", "inner/y.svg"):
        path = image_folder / "train/blue" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    assert load_folder(image_folder, "train", SIZE).notes == (
        f"3 files in {image_folder / 'train'} were skipped: "
        "not named as PNG, JPEG, WEBP, BMP or GIF images",
    )


def swap_classes(root):
    (root / "blue").rename(root / "x")
    (root / "red").rename(root / "blue")
    (root / "x").rename(root / "red")


def swap_files(root):
    (root / "blue/000.png").rename(root / "x")
    (root / "red/000.png").rename(root / "blue/000.png")
    (root / "x").rename(root / "red/000.png")


def overwrite(root):
    content = (root / "red/000.png").read_bytes()
    with (root / "blue/000.png").open("r+b") as file:
        file.write(content)


@pytest.mark.parametrize("change", [swap_classes, swap_files, overwrite], ids=lambda f: f.__name__)
def test_a_change_that_keeps_sizes_and_times_is_noticed(image_folder, monkeypatch, change):
    root = image_folder / "train"
    for path in root.glob("*/*.png"):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.with_suffix(".bmp").rename(path)  # all of one size
        os.utime(path, (1_000_000, 1_000_000))
    load_folder(image_folder, "train", SIZE)
    change(root)
    for path in root.glob("*/*.png"):
        if path.stat().st_mtime != 1_000_000:
            os.utime(path, (1_000_000, 1_000_000))
    found = load_folder(image_folder, "train", SIZE).images
    monkeypatch.setenv("CIFAR_CNN_CACHE", str(image_folder / "other"))
    assert torch.equal(found, load_folder(image_folder, "train", SIZE).images)


def test_what_another_decoder_has_made_is_not_served(image_folder, monkeypatch):
    load_folder(image_folder, "test", SIZE)
    monkeypatch.setattr(folder, "DECODER", folder.DECODER + 1)
    load_folder(image_folder, "test", SIZE)
    assert len(list(cache_folder().iterdir())) == 2


def test_class_names_are_compared_whatever_their_unicode_form(image_folder):
    for half, form in (("train", "NFC"), ("test", "NFD")):
        name = unicodedata.normalize(form, "grün")
        (image_folder / half / "green").rename(image_folder / half / name)
    train, test = (load_folder(image_folder, half, SIZE) for half in ("train", "test"))
    assert train.classes == test.classes == ("blue", "grün", "red")
    (image_folder / "test" / unicodedata.normalize("NFC", "grün")).mkdir()
    with pytest.raises(DataError, match=r"two class folders in .*test are called 'grün'"):
        load_folder(image_folder, "test", SIZE)


def test_a_file_name_that_is_not_utf8_is_read_and_such_a_class_is_refused(image_folder):
    path = image_folder / "test/blue" / os.fsdecode(b"z\xff.png")
    shutil.copy(image_folder / "test/red/000.png", path)
    assert len(load_folder(image_folder, "test", SIZE)) == 13
    (image_folder / "test/red").rename(image_folder / "test" / os.fsdecode(b"\xff"))
    with pytest.raises(DataError, match="has a name that is not UTF-8: rename it"):
        load_folder(image_folder, "test", SIZE)


def test_without_a_home_images_are_decoded_each_time(image_folder, monkeypatch):
    monkeypatch.delenv("CIFAR_CNN_CACHE")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert cache_folder() is None
    assert len(load_folder(image_folder, "test", SIZE)) == 12


def test_too_many_pixels_for_the_memory_are_said_before_decoding(image_folder, monkeypatch):
    monkeypatch.setattr(dataset, "memory", lambda: 1_000_000)
    monkeypatch.setattr(images, "read_image", None)
    with pytest.raises(
        DataError, match=r"12 images of 4096x4096 need 0\.6 GB of memory, and there are 0\.0 GB: "
    ):
        load_folder(image_folder, "test", (4096, 4096))


def truncate(root):
    path = root / "test/green/001.png"
    path.write_bytes(path.read_bytes()[:100])
    return "green/001.png cannot be read"


def scribble(root):
    (root / "test/green/001.png").write_text("this is no picture")
    return "green/001.png cannot be read: not a PNG, JPEG, WEBP, BMP or GIF image"


def blow_up(root):
    Image.new("1", (20_000, 20_000)).save(root / "test/green/001.png")
    return "green/001.png has .* too many|green/001.png has too many pixels"


def empty(root):
    for file in (root / "test").glob("*/*"):
        file.unlink()
    (root / "test/blue/notes.txt").write_text("nothing here")
    return "test/blue has no PNG, JPEG, WEBP, BMP or GIF images"


def class_missing_from_train(root):
    shutil.rmtree(root / "train/green")
    return "class 'green' is in .*test but not in train/"


def flat(root):
    shutil.rmtree(root / "test")
    (root / "test").mkdir()
    Image.new("RGB", SIZE).save(root / "test/0.png")
    return "test has no class folders: expected train/<class>"


def nothing(root):
    shutil.rmtree(root)
    return "images does not exist: expected train/<class>"


MISTAKES = [
    truncate,
    scribble,
    blow_up,
    empty,
    class_missing_from_train,
    flat,
    nothing,
]


@pytest.mark.parametrize("spoil", MISTAKES, ids=lambda f: f.__name__)
def test_each_mistake_is_one_line_that_names_the_place(image_folder, spoil):
    message = spoil(image_folder)
    with pytest.raises(DataError, match=message) as caught:
        load_folder(image_folder, "test", SIZE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_class_may_lack_test_images_and_no_training_images(image_folder, is_there):
    shutil.rmtree(image_folder / "test/green")
    if is_there:
        (image_folder / "test/green").mkdir()
    split = load_folder(image_folder, "test", SIZE)
    assert split.classes == ("blue", "green", "red")
    assert split.labels.unique().tolist() == [0, 2]
    assert split.notes == (
        "there are no test images of green: how well these are told is not measured",
    )
    shutil.rmtree(image_folder / "train/red")
    (image_folder / "train/red").mkdir()
    with pytest.raises(DataError, match="train/red has no PNG"):
        load_folder(image_folder, "train", SIZE)


def test_an_unreadable_image_is_named(image_folder):
    path = image_folder / "test/green/001.png"
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(DataError, match=r"001\.png"):
        load_folder(image_folder, "test", SIZE)


def test_images_that_lie_the_other_way_round_are_answered_with_the_swapped_size(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (48, 64)).save(tmp_path / "test" / name / "0.png")  # 64 high
    (note,) = load_folder(tmp_path, "test", (48, 64)).notes
    assert note.endswith(
        "are not 48x64 (height x width) and were resized; --input-size 64x48 is their size"
    )
    assert load_folder(tmp_path, "test", (64, 48)).notes == ()
    (note,) = load_folder(tmp_path, "test", (32, 64)).notes
    assert note.endswith("are not 32x64 (height x width) and were resized")
