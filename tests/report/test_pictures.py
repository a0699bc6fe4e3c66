import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cifar_cnn.analysis.results import EffectiveField, TheoreticalField
from cifar_cnn.report.charts import draw_effective, join_panels
from cifar_cnn.report.curves import (
    EVAL_COLOR,
    TRAIN_COLOR,
    Curve,
    draw_comparison,
    draw_curves,
)
from cifar_cnn.training.history import EpochRow


def make_history(count):
    other = {"step": 1, "lr": 0.1, "eval_split": "test", "seconds": 1.0, "images_per_second": 1.0}
    return [
        EpochRow(
            epoch=epoch,
            train_loss=2 / (epoch + 1),
            train_accuracy=0.3 + 0.5 * epoch / count,
            eval_loss=1.5 / (epoch + 1),
            eval_accuracy=0.4 + epoch % 50 / 100,
            **other,
        )
        for epoch in range(count)
    ]


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def has_color(picture, color):
    target = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.abs(picture.astype(int) - target).sum(axis=2) < 24).sum() > 50


def test_both_lines_are_drawn_in_both_panels():
    for count in (1, 3, 100):
        panels = draw_curves(make_history(count))
        for panel in (pixels(each) for each in panels):
            assert has_color(panel, TRAIN_COLOR)
            assert has_color(panel, EVAL_COLOR)
        assert pixels(join_panels(panels)).shape == (418, 2 * 506, 3)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn while the test runs."""
    collected = []

    def collect(width, height, fill):
        collected.append(Figure((width, height)))
        fill(collected[-1].subplots())
        return b""

    monkeypatch.setattr("cifar_cnn.report.charts.draw", collect)
    return collected


def test_the_split_of_every_curve_that_is_compared_is_said(figures):
    draw_comparison(
        {"a": Curve("val", [0, 1], [2, 1], [0.5, 0.6]), "b": Curve("test", [0], [1], [0.4])}
    )
    loss, accuracy = ([t.get_text() for t in each.legends[0].get_texts()] for each in figures)
    assert accuracy == ["a, validation: 60.00%", "b, test: 40.00%"]
    assert loss == ["a, validation: 1.0000", "b, test: 1.0000"]


@pytest.mark.parametrize("span", [0.001, 0.02, 0.13, 0.17, 0.5, 1])
def test_no_two_ticks_are_the_same_and_each_is_where_it_says(figures, span):
    draw_comparison(
        {"a": Curve("test", [0, 1], [2, 1], [0.42 * (1 - span), 0.42 * (1 - span) + span])}
    )
    axis = figures[1].axes[0].yaxis
    labels = axis.get_major_formatter().format_ticks(axis.get_majorticklocs())
    assert len({*labels}) == len(labels)
    for label, place in zip(labels, axis.get_majorticklocs(), strict=True):
        assert float(label.rstrip("%").replace("\N{MINUS SIGN}", "-")) == pytest.approx(100 * place)


def test_a_run_whose_name_begins_with_an_underscore_is_in_the_legend(figures):
    draw_comparison(
        {name: Curve("test", [0], [1], [0.4]) for name in ("_a", ":cat:", "[b]", "$c$")}
    )
    labels = [text.get_text().strip() for text in figures[1].legends[0].get_texts()]
    assert labels == [f"{name}, test: 40.00%" for name in ("_a", ":cat:", "[b]", "$c$")]


def test_the_effective_field_is_a_picture_that_differs_with_the_heat():
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
        pictures.append(pixels(draw_effective(field)))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()
