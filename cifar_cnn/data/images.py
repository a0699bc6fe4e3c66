"""One image file into pixels, whatever its format, mode and size."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cifar_cnn.errors import DataError, one_line

MAX_PIXELS = 64_000_000  # beyond any photograph that is meant to become 32×32


def read_image(path: Path, size: tuple[int, int]) -> tuple[NDArray[np.uint8], bool]:
    """Decode an image to RGB uint8 (3, H, W) of `size` (H, W), and say whether it was resized.

    Raises:
        DataError: the file cannot be read as an image, or is unreasonably large.
    """
    height, width = size
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"image {path} has {image.width}x{image.height} pixels: too many")
            if image.mode == "P" and "transparency" in image.info:
                rgb = image.convert("RGBA").convert("RGB")
            else:
                rgb = image.convert("RGB")
            resized = rgb.size != (width, height)
            if resized:
                rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else one_line(error)
        raise DataError(f"image {path} cannot be read: {reason}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"image {path} has too many pixels") from error
    return np.asarray(rgb).transpose(2, 0, 1), resized
