import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_cnn.data import folder
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
            f"1 of 12 images in {image_folder / 'test'} are not 32x32 and were resized",
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


def test_a_palette_with_transparency_is_read_without_a_warning(image_folder):
    image = Image.new("P", SIZE)
    image.putpalette([200, 100, 50] * 256)
    image.save(image_folder / "test/blue/zzz.png", transparency=b"\x00\x80")
    split = load_folder(image_folder, "test", SIZE)
    assert split.images[4, :, 0, 0].tolist() == [200, 100, 50]


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


def empty_class(root):
    for file in (root / "test/green").iterdir():
        file.unlink()
    (root / "test/green/notes.txt").write_text("nothing here")
    return "test/green has no .png, .jpg, .jpeg images"


def class_missing_from_test(root):
    shutil.rmtree(root / "test/green")
    return "class 'green' is in .*train but not in test/"


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
    empty_class,
    class_missing_from_test,
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


def test_an_unreadable_image_is_named(image_folder):
    path = image_folder / "test/green/001.png"
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(DataError, match=r"001\.png"):
        load_folder(image_folder, "test", SIZE)
