"""Decode image files of any format, mode and size, and cache them."""

import itertools
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import BinaryIO, NamedTuple

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_cnn.data.dataset import allocate
from cifar_cnn.data.layout import KINDS
from cifar_cnn.errors import DataError, one_line

DECODER = 4
"""Version of the cached images; a new one makes older caches void."""
MAX_PIXELS = 64_000_000  # beyond any photograph that is meant to become 32×32
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # none of Pillow's that starts other programs

TINY = 4096
"""Bytes of a file up to which threads wait for each other longer than they decode."""
AT_ONCE = 8
"""Most images that a thread takes at once: taking one lasts as long as decoding a small one."""

Source = Path | BinaryIO
Tell = Callable[[int, int], None]
"""Is called with how many images are decoded, 0 at first, and their total."""


class Changes(NamedTuple):
    """What was done to an image so that a network can take it."""

    resized: bool
    on_white: bool


class Decoded(NamedTuple):
    """Images uint8 (N, 3, H, W), and the `Changes` of each, bool (N, 2)."""

    images: NDArray[np.uint8]
    changes: NDArray[np.bool_]


def read_images(
    sources: Sequence[Source], size: tuple[int, int], tell: Tell | None = None
) -> Decoded:
    """Decode images to RGB of `size` (H, W); raise a DataError for the first that is unreadable."""
    images, changes = try_images(sources, size, tell, raise_errors=True)
    return Decoded(images, np.array(changes, dtype=bool).reshape(-1, 2))


def try_images(
    sources: Sequence[Source],
    size: tuple[int, int],
    tell: Tell | None = None,
    *,
    raise_errors: bool = False,
) -> tuple[NDArray[np.uint8], list[Changes | DataError]]:
    """Decode images as `read_images` does; return the error of each unreadable one in its place."""
    images, count, workers = allocate(len(sources), size), len(sources), _count_workers(sources)
    at_once = max(1, min(AT_ONCE, count // (4 * workers)))
    outcomes: list[Changes | DataError] = []
    stopped = Event()

    def decode(index: int) -> Changes | DataError:
        try:
            images[index], changes = read_image(sources[index], size)
        except DataError as error:
            if raise_errors:
                raise
            return error
        return changes

    def decode_some(start: int) -> list[Changes | DataError]:
        indices = range(start, min(start + at_once, count))
        return [decode(index) for index in indices if not stopped.is_set()]

    pool = ThreadPoolExecutor(workers)  # the decoders release the interpreter lock
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # broken EXIF
            for some in itertools.chain([[]], pool.map(decode_some, range(0, count, at_once))):
                outcomes += some
                if tell:
                    tell(len(outcomes), count)
    finally:
        stopped.set()  # where one image fails or the user stops
        pool.shutdown(cancel_futures=True)
    return images, outcomes


def _count_workers(sources: Sequence[Source]) -> int:
    """Return the number of threads: one if most of the first files are tiny, else all cores."""
    first = [each for each in sources[:99] if isinstance(each, Path) and each.is_file()]
    are_tiny = sum(each.stat().st_size <= TINY for each in first) > len(first) / 2
    return 1 if are_tiny else os.cpu_count() or 1


def read_image(source: Source, size: tuple[int, int]) -> tuple[NDArray[np.uint8], Changes]:
    """Decode an image, upright, to RGB uint8 (3, H, W) of `size` (H, W); return its `Changes` too.

    Transparent parts become white; an animation is its first frame.
    """
    name = f"image {source}" if isinstance(source, Path) else "the image on standard input"
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise DataError(f"{name} cannot be read: not a file")  # a pipe would be waited for
    try:
        with Image.open(source, formats=FORMATS) as image:
            rgb, on_white = _to_rgb(image)
            return fit(rgb, size), Changes((rgb.height, rgb.width) != size, on_white)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} has too many pixels") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name} cannot be read: not a {KINDS} image") from error
    except Exception as error:  # decoders of foreign files raise anything
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"{name} cannot be read: {reason or one_line(error)}") from error


def fit(rgb: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an RGB image as uint8 (3, H, W) of `size` (H, W), by Pillow's bilinear resizing."""
    height, width = size  # a copy where that is the image's size already
    return np.asarray(rgb.resize((width, height), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def _to_rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the image in RGB, and whether it was laid on white."""
    if image.width * image.height > MAX_PIXELS:  # known before any pixel is decoded
        raise Image.DecompressionBombError
    with suppress(Exception):  # broken EXIF is no reason to refuse a whole image
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # convert() would clip all above 255 to white
        gray = np.asarray(image)
        alpha = np.where(gray == image.info.get("transparency", -1), 0, 255)
        image = Image.fromarray(np.dstack([gray >> 8, alpha]).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB"), False
    colors = image.convert("RGBA")
    if colors.getchannel("A").getextrema() == (255, 255):
        return colors.convert("RGB"), False
    white = Image.new("RGBA", colors.size, "white")
    return Image.alpha_composite(white, colors).convert("RGB"), True


def _cache_file(key: str) -> Path:
    """Return the file in $CIFAR_CNN_CACHE, else in the user's cache folder.

    Raises a RuntimeError if the user has no home folder.
    """
    folder = os.environ.get("CIFAR_CNN_CACHE") or platformdirs.user_cache_path("cifar-cnn")
    return Path(folder, f"{key}.npz")


def read_cache(key: str) -> Decoded | None:
    """Return the images cached under `key`, or None if there are none or they are damaged."""
    try:
        with _cache_file(key).open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            return Decoded(arrays["images"], arrays["changes"])
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def write_cache(key: str, decoded: Decoded) -> None:
    """Cache the images under `key`; if they cannot be written, the next run decodes them again."""
    with suppress(OSError, RuntimeError):
        file = _cache_file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}.part")
        try:
            with temporary.open("wb") as stream:
                np.savez(stream, **decoded._asdict())
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
