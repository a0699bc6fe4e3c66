"""The built-in data set: ten classes of drawn shapes, the same images always, no files."""

import numpy as np
import torch
from numpy.typing import NDArray

from cifar_cnn.data.dataset import Progress, Split
from cifar_cnn.data.load import FixedSource

SHAPES = ("disk", "square", "triangle", "cross", "ring")
TONES = ("warm", "cool")
CLASSES = tuple(f"{tone} {shape}" for tone in TONES for shape in SHAPES)
SIZES = {"train": 10_000, "test": 2_000}
SIDE = 32

_SEEDS = {"train": 1, "test": 2}
_CHUNK = 1_000
Floats = NDArray[np.float64]


def draw_synthetic(name: str) -> Split:
    """Draw the `train` (10,000) or `test` (2,000) images, uint8 (N, 3, 32, 32).

    A class is a shape and the tone of its color; place, size, angle, shade, background and noise
    vary, so that neither shape nor color alone tells the class, nor any pixel.
    """
    random = np.random.RandomState(_SEEDS[name])  # its stream is frozen by numpy's policy
    count = SIZES[name]
    labels = np.arange(count) % len(CLASSES)
    chunks = [_draw(labels[i : i + _CHUNK], random) for i in range(0, count, _CHUNK)]
    images = torch.from_numpy(np.concatenate(chunks))
    return Split(images, torch.from_numpy(labels), CLASSES, name=name)


def _draw(labels: NDArray[np.int64], random: np.random.RandomState) -> NDArray[np.uint8]:
    count = len(labels)
    shape, tone = labels % len(SHAPES), labels // len(SHAPES)
    inside = _mask(shape, random)[:, None]
    ink = _color(tone, random)[:, :, None, None]
    ground = _background(count, random)
    image = inside * ink + (1 - inside) * ground + random.normal(0, 0.02, (count, 3, SIDE, SIDE))
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def _mask(shape: NDArray[np.int64], random: np.random.RandomState) -> Floats:
    """Return (N, 32, 32): 1 inside the shape, 0 outside, a soft edge one pixel wide."""
    count = len(shape)
    radius = random.uniform(7, 11, (count, 1, 1))
    angle = random.uniform(-0.35, 0.35, (count, 1, 1))
    center_x, center_y = random.uniform(10.5, 20.5, (2, count, 1, 1))
    grid_y, grid_x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)
    x, y = grid_x - center_x, grid_y - center_y
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    from_center = np.hypot(x, y)
    triangle = np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.55 * radius
    bars = np.minimum(np.maximum(np.abs(x), 3 * np.abs(y)), np.maximum(3 * np.abs(x), np.abs(y)))
    distances = {  # signed distance from the outline in pixels, negative inside, roughly
        "disk": from_center - radius,
        "square": np.maximum(np.abs(x), np.abs(y)) - 0.9 * radius,
        "triangle": triangle,
        "cross": bars - 1.1 * radius,
        "ring": np.abs(from_center - 0.8 * radius) - 0.25 * radius,
    }
    distance = np.choose(shape[:, None, None], [distances[name] for name in SHAPES])
    return (0.5 - distance).clip(0, 1)


def _color(tone: NDArray[np.int64], random: np.random.RandomState) -> Floats:
    """Return (N, 3): red over blue for warm, blue over red for cool, any brightness."""
    strong = random.uniform(0.55, 0.95, len(tone))
    weak = strong - random.uniform(0.3, 0.5, len(tone))
    green = random.uniform(0.1, 0.8, len(tone))
    warm = np.stack([strong, green, weak], axis=1)
    return np.where(tone[:, None] == 0, warm, warm[:, ::-1])


def _background(count: int, random: np.random.RandomState) -> Floats:
    """Return (N, 3, 32, 32): a gradient between two random colors in a random direction."""
    first, second = random.uniform(0, 1, (2, count, 3, 1, 1))
    turn = random.uniform(0, 2 * np.pi, (count, 1, 1))
    grid_y, grid_x = np.mgrid[-0.5 : 0.5 : SIDE * 1j, -0.5 : 0.5 : SIDE * 1j]
    along = (0.5 + grid_x * np.cos(turn) + grid_y * np.sin(turn)).clip(0, 1)[:, None]
    return np.asarray(first + (second - first) * along)


class Synthetic(FixedSource):
    """The built-in data set."""

    classes = CLASSES

    def read(self, name: str, _progress: Progress | None) -> Split:
        """Draw a split."""
        return draw_synthetic(name)


SOURCE = Synthetic
