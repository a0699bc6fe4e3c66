import io

import numpy as np
from PIL import Image

from cifar_cnn.analysis.effective import EffectiveField
from cifar_cnn.report.effective_picture import draw_effective


def test_the_picture_is_a_png_that_differs_with_the_heat():
    pictures = []
    for row in (4, 9):
        heat = np.zeros((16, 16))
        heat[row, 8] = 1
        field = EffectiveField("features", 3, "conv", (2, 2), (-3, 2, 12, 17), heat)
        with Image.open(io.BytesIO(draw_effective(field))) as image:
            assert image.format == "PNG"
            pictures.append(np.asarray(image.convert("RGB")))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()
