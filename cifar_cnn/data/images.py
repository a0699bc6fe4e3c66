"""Image files into pixels, whatever their format, mode and size; and a cache of these."""

import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_cnn.data.dataset import allocate
from cifar_cnn.data.layout import KINDS
from cifar_cnn.errors import DataError, one_line

DECODER = 3
"""Version of the cached images; a new one makes older caches void."""
MAX_PIXELS = 64_000_000  # beyond any photograph that is meant to become 32×32
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # none of Pillow's that starts other programs

TINY = 4096
"""Bytes of a file up to which threads wait for each other longer than they decode."""
AT_ONCE = 8
"""Most images that a thread takes at once: taking one lasts as long as decoding a small one."""

Source = Path | BinaryIO
Told = Callable[[int, int], None]
"""Is called with how many images are decoded, 0 at first, and their total."""
Outcome = TypeVar("Outcome")


class Changes(NamedTuple):
    """What was done to an image so that a network can take it."""

    resized: bool
    on_white: bool


class Decoded(NamedTuple):
    """Images uint8 (N, 3, H, W), and bool (N): which of them were changed."""

    images: NDArray[np.uint8]
    resized: NDArray[np.bool_]
    on_white: NDArray[np.bool_]


def read_images(
    sources: Sequence[Source], size: tuple[int, int], told: Told | None = None
) -> Decoded:
    """Decode images to RGB of `size` (H, W); raise a DataError for the first that is unreadable."""
    images = allocate(len(sources), size)

    def decode(index: int) -> Changes:
        images[index], changes = read_image(sources[index], size)
        return changes

    changes = np.array(_in_threads(decode, sources, told), dtype=bool).reshape(-1, 2)
    return Decoded(images, *changes.T)


def try_images(
    sources: Sequence[Source], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], list[Changes | DataError]]:
    """Decode images as `read_images` does; return the error of each unreadable one in its place."""
    images = allocate(len(sources), size)

    def decode(index: int) -> Changes | DataError:
        try:
            images[index], changes = read_image(sources[index], size)
        except DataError as error:
            return error
        return changes

    return images, _in_threads(decode, sources)


def _in_threads(
    decode: Callable[[int], Outcome], sources: Sequence[Source], told: Told | None = None
) -> list[Outcome]:
    count, workers = len(sources), 1 if _are_tiny(sources) else os.cpu_count() or 1
    at_once = max(1, min(AT_ONCE, count // (4 * workers)))
    decoded: list[Outcome] = []
    stopped = Event()

    def some(first: int) -> list[Outcome]:
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
    """Return whether most of the first files are tiny; missing ones are found in reading."""
    first = [each for each in sources[:99] if isinstance(each, Path) and each.is_file()]
    return sum(each.stat().st_size <= TINY for each in first) > len(first) / 2


def read_image(source: Source, size: tuple[int, int]) -> tuple[NDArray[np.uint8], Changes]:
    """Decode an image, upright, to RGB uint8 (3, H, W) of `size` (H, W); tell what that changed.

    Transparent parts become white; an animation is its first frame.
    """
    height, width = size
    name = f"image {source}" if isinstance(source, Path) else "the image on standard input"
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise DataError(f"{name} cannot be read: not a file")  # a pipe would be waited for
    try:
        with Image.open(source, formats=FORMATS) as image:
            rgb, on_white = _to_rgb(image)
            resized = rgb.size != (width, height)
            return fit(rgb, size), Changes(resized, on_white)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} has too many pixels") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name} cannot be read: not a {KINDS} image") from error
    except Exception as error:  # decoders of foreign files raise anything
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"{name} cannot be read: {reason or one_line(error)}") from error


def fit(rgb: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an RGB image as uint8 (3, H, W) of `size` (H, W), by Pillow's bilinear resizing."""
    height, width = size
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(rgb).transpose(2, 0, 1)


def _to_rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the image in RGB, and whether it was laid on white."""
    if image.width * image.height > MAX_PIXELS:  # known before any pixel is decoded
        raise Image.DecompressionBombError
    with suppress(Exception):  # broken EXIF is no reason to refuse a whole image
        image = ImageOps.exif_transpose(image)
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


def cache_folder() -> Path | None:
    """Return $CIFAR_CNN_CACHE, else the user's cache folder; None if there is no home."""
    if moved := os.environ.get("CIFAR_CNN_CACHE"):
        return Path(moved)
    try:
        return platformdirs.user_cache_path("cifar-cnn")
    except RuntimeError:
        return None


def read_cache(key: str) -> Decoded | None:
    """Return the images cached under `key`, or None if there are none or they are damaged."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        with (folder / f"{key}.npz").open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            changes = (arrays[name].view(bool) for name in ("resized", "on_white"))
            return Decoded(arrays["images"], *changes)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def write_cache(key: str, decoded: Decoded) -> None:
    """Cache the images under `key`; if they cannot be written, the next run decodes them again."""
    folder = cache_folder()
    if folder is None:
        return
    temporary = folder / f"{key}.{os.getpid()}.part"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **decoded._asdict())
        temporary.replace(folder / f"{key}.npz")
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
