"""Image files into pixels, whatever their format, mode and size."""

import io
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from cifar_cnn.data.dataset import check_memory
from cifar_cnn.data.listing import KINDS
from cifar_cnn.errors import DataError, one_line

DECODER = 3
"""Version of what is kept of a decoded file; another one makes cached images void."""
MAX_PIXELS = 64_000_000  # beyond any photograph that is meant to become 32×32
READ_AT_ONCE = 1 << 16
"""Bytes that are asked for without a look at how many there are."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # none of Pillow's that starts other programs

TINY = 4096
"""Bytes of a file up to which threads wait for each other longer than they decode."""
AT_ONCE = 8
"""Most images that a thread decodes before it asks for more: asking takes a small one's time."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation. Source: Exif 2.32, 4.6.4, tag 274."""

Source = Path | BinaryIO
Decoded = TypeVar("Decoded")


class _BoundedReader(io.BufferedReader):
    """Takes no more memory than the file has bytes, whatever a chunk of an image says of itself."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > READ_AT_ONCE:
            size = min(size, max(os.fstat(self.fileno()).st_size - self.tell(), 0))
        return super().read(size)


class Changes(NamedTuple):
    """What was done to an image so that a network can take it."""

    resized: bool
    on_white: bool


def read_images(
    sources: Sequence[Source],
    size: tuple[int, int],
    told: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.uint8], list[Changes]]:
    """Decode images to RGB uint8 (N, 3, H, W) of `size` (H, W), and say what that changed.

    Args:
        sources: image files.
        size: of the images that are returned.
        told: is told now and then how many images are decoded, and of how many.

    Raises:
        DataError: a file cannot be read as an image, or is unreasonably large; or there is no
            memory for all.
    """
    check_memory(len(sources), size)
    images = np.empty((len(sources), 3, *size), dtype=np.uint8)

    def decode(index: int) -> Changes:
        images[index], changes = read_image(sources[index], size)
        return changes

    return images, _in_threads(decode, sources, told)


def try_images(
    sources: Sequence[Source], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], list[Changes | DataError]]:
    """Decode images as `read_images` does; one that cannot be read has its error for an answer."""
    images = np.zeros((len(sources), 3, *size), dtype=np.uint8)

    def decode(index: int) -> Changes | DataError:
        try:
            images[index], changes = read_image(sources[index], size)
        except DataError as error:
            return error
        return changes

    return images, _in_threads(decode, sources)


def _in_threads(
    decode: Callable[[int], Decoded],
    sources: Sequence[Source],
    told: Callable[[int, int], None] | None = None,
) -> list[Decoded]:
    count, workers = len(sources), 1 if _are_tiny(sources) else os.cpu_count() or 1
    at_once = max(1, min(AT_ONCE, count // (4 * workers)))
    decoded: list[Decoded] = []
    stopped = Event()

    def some(first: int) -> list[Decoded]:
        images = range(first, min(first + at_once, count))
        return [decode(index) for index in images if not stopped.is_set()]

    pool = ThreadPoolExecutor(workers)  # the decoders release the interpreter lock
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # broken EXIF
            if told:
                told(0, count)
            for each in pool.map(some, range(0, count, at_once)):
                decoded += each
                if told:
                    told(len(decoded), count)
            return decoded
    finally:
        stopped.set()  # where one image fails or the user stops
        pool.shutdown(cancel_futures=True)


def _are_tiny(sources: Sequence[Source]) -> bool:
    """Say whether most of the first files are; one that is not there is found when it is read."""
    first = [each for each in sources[:99] if isinstance(each, Path) and each.is_file()]
    return sum(each.stat().st_size <= TINY for each in first) > len(first) / 2


def read_image(source: Source, size: tuple[int, int]) -> tuple[NDArray[np.uint8], Changes]:
    """Decode an image, upright, to RGB uint8 (3, H, W) of `size` (H, W); say what that changed.

    What is transparent is laid on white. Of a moving picture it is the first.

    Raises:
        DataError: the file cannot be read as an image, or is unreasonably large.
    """
    height, width = size
    name = f"image {source}" if isinstance(source, Path) else "the image on standard input"
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise DataError(f"{name} cannot be read: not a file")  # a pipe would be waited for
    try:
        with ExitStack() as opened:
            if isinstance(source, Path):
                source = opened.enter_context(_BoundedReader(io.FileIO(source)))
            image = opened.enter_context(Image.open(source, formats=FORMATS))
            rgb, on_white = _to_rgb(image)
            rgb = _upright(rgb, image)
            resized = rgb.size != (width, height)
            pixels = fit(rgb, size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} has too many pixels") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name} cannot be read: not a {KINDS} image") from error
    except Exception as error:  # decoders of foreign files raise anything
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"{name} cannot be read: {reason or one_line(error)}") from error
    return pixels, Changes(resized, on_white)


def fit(rgb: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an RGB image as uint8 (3, H, W) of `size` (H, W), by Pillow's bilinear resizing."""
    height, width = size
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(rgb).transpose(2, 0, 1)


def _to_rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    if image.width * image.height > MAX_PIXELS:  # known before any pixel is decoded
        raise Image.DecompressionBombError
    if image.mode.startswith("I;16"):  # convert() would clip all above 255 to white
        image = _eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB"), False
    colors = image.convert("RGBA")
    if colors.getchannel("A").getextrema() == (255, 255):
        return colors.convert("RGB"), False
    white = Image.new("RGBA", colors.size, "white")
    return Image.alpha_composite(white, colors).convert("RGB"), True


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return 16 bits of gray as gray with alpha; a PNG may name one shade that is transparent."""
    gray = np.asarray(image)
    alpha = np.where(gray == image.info.get("transparency", -1), 0, 255)
    return Image.fromarray(np.dstack([gray >> 8, alpha]).astype(np.uint8))


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken remarks are no reason to refuse a whole image
        return rgb
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb
