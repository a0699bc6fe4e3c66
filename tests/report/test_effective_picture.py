import io

import numpy as np
from PIL import Image

from cifar_cnn.analysis.results import EffectiveField, TheoreticalField
from cifar_cnn.report.effective_picture import draw_effective


def test_the_picture_is_a_png_that_differs_with_the_heat():
    pictures = []
    for row in (4, 9):
        heat = np.zeros((16, 16))
        heat[row, 8] = 1
        field = EffectiveField(
            target="features",
            samples=3,
            layer="conv",
            unit=(2, 2),
            theoretical=TheoreticalField(receptive_field=(16, 16), top=-3, left=2, clipped=0.3),
            squares=(),
            heat=heat,
        )
        with Image.open(io.BytesIO(draw_effective(field))) as image:
            assert image.format == "PNG"
            pictures.append(np.asarray(image.convert("RGB")))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()
