"""Image files of every kind, damaged and hostile ones among them."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from cifar_cnn.data.images import read_image, read_images, try_images
from cifar_cnn.errors import DataError

SIZE = (32, 32)
PIXELS = np.random.RandomState(0).randint(0, 256, (32, 32, 3), dtype=np.uint8)


def encoded(kind="PNG", mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, kind, **options)
    return file.getvalue()


def png(width, height, kind=2, depth=8, body=b""):
    """Return a PNG that claims a size it has no pixels for."""

    def chunk(name, content):
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(body)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


HOSTILE = {
    "bomb": png(60_000, 60_000),
    "bomb below Pillow's own limit": png(9_000, 9_000),
    "wide": png(2**31 - 1, 1),
    "empty": b"",
    "no pixels": png(32, 32),
    "zero wide": png(0, 32),
    "text bomb": encoded()[:33] + b"\0\0\x10\0zTXtk\0\0" + zlib.compress(bytes(1 << 27)),
    "cut off": encoded()[:700],
    "cut off JPEG": encoded("JPEG")[:400],
    "program that some decoders run": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "words": b"not an image",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_is_one_line(tmp_path, name):
    path = tmp_path / "bad.png"
    path.write_bytes(HOSTILE[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"bad\.png") as caught:
            read_image(path, SIZE)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(mode):
    kind = "JPEG" if mode in {"CMYK", "YCbCr"} else "PNG"
    image, changes = read_image(io.BytesIO(encoded(kind, mode)), SIZE)
    assert image.shape == (3, 32, 32)
    assert image.dtype == np.uint8
    assert not changes.resized


@pytest.mark.parametrize("content", [encoded(), encoded("JPEG"), encoded("PNG", "P")])
def test_every_truncation_and_every_flipped_byte_is_an_image_or_one_line(tmp_path, content):
    random = np.random.RandomState(1)
    paths = [tmp_path / f"{index}.png" for index in range(150)]
    for path in paths:
        spoiled = bytearray(content)
        for _ in range(random.randint(1, 4)):
            spoiled[random.randint(len(spoiled))] = random.randint(256)
        path.write_bytes(spoiled[: random.randint(len(spoiled) // 2, len(spoiled) + 1)])
    pixels, outcomes = try_images(paths, SIZE)
    assert pixels.shape == (150, 3, 32, 32)
    assert len(outcomes) == 150
    assert all(str(outcome).isprintable() for outcome in outcomes)


def test_sixteen_bits_of_gray_keep_their_shades(tmp_path):
    gray = (np.arange(1024).reshape(32, 32) * 64).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    pixels, changes = read_image(tmp_path / "gray.png", (32, 32))
    assert (pixels == (gray >> 8)).all()
    assert changes == (False, False)


def test_an_open_file_is_read_like_a_path(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded())
    decoded = read_images([tmp_path / "a.png", io.BytesIO(encoded())], (40, 20))
    assert (decoded.images[0] == decoded.images[1]).all()
    assert decoded.changes.tolist() == [[True, False]] * 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_is_turned_as_its_camera_was_held(tmp_path, kind, orientation):
    source = Image.fromarray(PIXELS[:20])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    source.save(tmp_path / "x", kind, exif=exif)
    with Image.open(tmp_path / "x") as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    pixels, changes = read_image(tmp_path / "x", (expected.height, expected.width))
    assert (expected.height, expected.width) == ((20, 32) if orientation < 5 else (32, 20))
    assert not changes.resized
    assert (pixels.transpose(1, 2, 0) == np.asarray(expected)).all()


def test_broken_remarks_do_not_make_an_image_unreadable(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01")
    pixels, _ = read_image(tmp_path / "a.png", SIZE)
    assert (pixels.transpose(1, 2, 0) == PIXELS).all()


def half_transparent(mode):
    image = Image.new("RGBA", SIZE, (200, 100, 50, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 32))
    if mode == "P":
        image = image.quantize(4)
    return image.convert(mode)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "P"), ("WEBP", "RGBA"), ("GIF", "RGBA")],
)
def test_what_is_transparent_is_laid_on_white(tmp_path, kind, mode):
    options = {"lossless": True} if kind == "WEBP" else {}
    half_transparent(mode).save(tmp_path / "x", kind, **options)
    pixels, changes = read_image(tmp_path / "x", SIZE)
    gray = half_transparent("LA").getpixel((20, 0))[0]
    assert pixels[:, 5, 5].tolist() == [255, 255, 255]
    assert pixels[:, 5, 20].tolist() == ([gray] * 3 if mode == "LA" else [200, 100, 50])
    assert changes.on_white


def test_half_transparent_is_half_white_and_an_opaque_alpha_channel_changes_nothing(tmp_path):
    Image.new("RGBA", SIZE, (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", SIZE)[0][:, 0, 0].tolist() == [127, 127, 127]
    Image.fromarray(PIXELS).convert("RGBA").save(tmp_path / "a.png")
    pixels, changes = read_image(tmp_path / "a.png", SIZE)
    assert (pixels.transpose(1, 2, 0) == PIXELS).all()
    assert not changes.on_white


@pytest.mark.parametrize(("mode", "color"), [("RGB", (9, 9, 9)), ("L", 9), ("I;16", 9 << 8)])
def test_one_shade_that_a_png_names_transparent_is_white(tmp_path, mode, color):
    image = Image.new(mode, SIZE, color)
    image.putpixel((3, 4), (80, 80, 80) if mode == "RGB" else 80 if mode == "L" else 80 << 8)
    image.save(tmp_path / "a.png", transparency=color)
    pixels, changes = read_image(tmp_path / "a.png", SIZE)
    assert pixels[:, 4, 3].tolist() == [80, 80, 80]
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert changes.on_white


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png cannot be read: not a file"):
        read_image(tmp_path / "a.png", SIZE)
