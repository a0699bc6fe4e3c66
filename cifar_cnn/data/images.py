"""Image files into pixels, whatever their format, mode and size."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cifar_cnn.errors import DataError, one_line

MAX_PIXELS = 64_000_000  # beyond any photograph that is meant to become 32×32
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # none of Pillow's that starts other programs

_KNOWN = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"

Source = Path | BinaryIO


def read_images(
    sources: Sequence[Source], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], list[bool]]:
    """Decode images to RGB uint8 (N, 3, H, W) of `size` (H, W), and say which were resized.

    Raises:
        DataError: a file cannot be read as an image, or is unreasonably large.
    """
    images = np.empty((len(sources), 3, *size), dtype=np.uint8)

    def decode(index: int) -> bool:
        images[index], was_resized = read_image(sources[index], size)
        return was_resized

    pool = ThreadPoolExecutor(os.cpu_count())  # the decoders release the interpreter lock
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return images, list(pool.map(decode, range(len(sources))))
    finally:
        pool.shutdown(cancel_futures=True)  # where one image fails or the user stops


def read_image(source: Source, size: tuple[int, int]) -> tuple[NDArray[np.uint8], bool]:
    """Decode an image to RGB uint8 (3, H, W) of `size` (H, W), and say whether it was resized.

    Raises:
        DataError: the file cannot be read as an image, or is unreasonably large.
    """
    height, width = size
    name = f"image {source}" if isinstance(source, Path) else "the image on standard input"
    try:
        with Image.open(source, formats=FORMATS) as image:
            rgb = _to_rgb(image)
            resized = rgb.size != (width, height)
            if resized:
                rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} has too many pixels") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name} cannot be read: not a {_KNOWN} image") from error
    except Exception as error:  # decoders of foreign files raise anything
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"{name} cannot be read: {reason or one_line(error)}") from error
    return np.asarray(rgb).transpose(2, 0, 1), resized


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:  # known before any pixel is decoded
        raise Image.DecompressionBombError
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    if image.mode.startswith("I;16"):  # convert() would clip all above 255 to white
        gray = np.asarray(image) >> 8
        return Image.fromarray(gray.astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
