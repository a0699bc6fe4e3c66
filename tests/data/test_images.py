import io

import numpy as np
import pytest
from PIL import Image

from cifar_cnn.data.images import read_image, read_images
from cifar_cnn.errors import DataError


def test_sixteen_bits_of_grey_keep_their_shades(tmp_path):
    grey = (np.arange(1024).reshape(32, 32) * 64).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    pixels, resized = read_image(tmp_path / "grey.png", (32, 32))
    assert (pixels == (grey >> 8)).all()
    assert not resized


def test_an_open_file_is_read_like_a_path(tmp_path):
    Image.new("RGB", (40, 20), (9, 99, 200)).save(tmp_path / "a.png")
    content = io.BytesIO((tmp_path / "a.png").read_bytes())
    images, resized = read_images([tmp_path / "a.png", content], (32, 32))
    assert (images[0] == images[1]).all()
    assert resized == [True, True]


def test_an_image_of_too_many_pixels_is_refused_without_a_warning(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match=r"large\.png has too many pixels"):
        read_images([tmp_path / "large.png"], (32, 32))
