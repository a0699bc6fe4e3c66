import io

import numpy as np
from PIL import Image

from cifar_cnn.report.curves import EVAL_COLOR, TRAIN_COLOR, draw_curves
from cifar_cnn.training.history import EpochRow


def rows(count):
    return [
        EpochRow(
            epoch=epoch,
            step=epoch + 1,
            lr=0.1,
            train_loss=2 / (epoch + 1),
            train_accuracy=0.3 + 0.5 * epoch / count,
            last_loss=1.0,
            batches=1,
            eval_split="test",
            eval_loss=1.5 / (epoch + 1),
            eval_correct=40 + epoch % 50,
            eval_samples=100,
            seconds=1.0,
            images_per_second=1.0,
        )
        for epoch in range(count)
    ]


def has_color(picture, color):
    target = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.abs(picture.astype(int) - target).sum(axis=2) < 24).sum() > 50


def test_both_lines_are_drawn_in_both_panels():
    for count in (1, 3, 100):
        picture = np.asarray(Image.open(io.BytesIO(draw_curves(rows(count)))).convert("RGB"))
        width = picture.shape[1]
        assert width >= 900
        for panel in (picture[:, : width // 2], picture[:, width // 2 :]):
            assert has_color(panel, TRAIN_COLOR)
            assert has_color(panel, EVAL_COLOR)
