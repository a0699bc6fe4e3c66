import io

import pytest
from rich.console import Console
from torch import nn

from cifar_cnn import Budget, receptive_field, summarize, verify
from cifar_cnn.analysis.verification import Evidence, conclude
from cifar_cnn.report.analysis_tables import (
    show_receptive_field,
    show_summary,
    show_verification,
)


def printed(show, result, width=80):
    stream = io.StringIO()
    show(Console(file=stream, width=width), result)
    return stream.getvalue()


def test_different_numbers_for_the_axes_are_both_shown():
    text = printed(show_receptive_field, receptive_field(nn.Conv2d(3, 4, (3, 5), stride=(1, 2))))
    row = text.splitlines()[1].split()
    assert row[1:] == ["30×14", "3,5", "1,2", "0", "1", "3,5", "1,2", "1,2"]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_fields_and_names_of_requirements_are_whole_on_any_screen(width):
    text = printed(show_receptive_field, receptive_field("baseline"), width)
    for field in (3, 5, 13, 17, 25, 49):
        assert f" {field} " in text
    text = printed(show_summary, summarize("baseline", budget=Budget()), width)
    for part in ("require:depthwise-separable", "197,922", "200,000"):
        assert part in text
    assert max(map(len, text.splitlines())) <= width


def test_brackets_in_a_layers_name_are_no_markup():
    net = nn.ModuleDict({"conv[a]": nn.Conv2d(3, 8, 3), "[/x]": nn.Conv2d(8, 8, 3)})
    net.forward = lambda image: net["[/x]"](net["conv[a]"](image))
    budget = Budget(max_params=1, require=())
    for text in (
        printed(show_summary, summarize(net, budget=budget), width=100),
        printed(show_receptive_field, receptive_field(net)),
    ):
        assert "conv[a]" in text
        assert "[/x]" in text


def test_warnings_are_shown():
    class Misaligned(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, stride=2, padding=1)
            self.pool = nn.MaxPool2d(2)

        def forward(self, x):
            return self.conv(x) + self.pool(x)

    text = printed(show_receptive_field, receptive_field(Misaligned()))
    assert "warning: paths meet misaligned at add" in text
    assert "units: first 3×3, middle 3×3, last 3×3" in text


def test_a_proof_says_what_it_checked():
    text = printed(show_verification, verify(nn.Conv2d(3, 4, 3)))
    assert text.startswith("verified: 1 layer, ")


def test_of_layers_that_are_clipped_five_are_named_and_the_others_counted():
    evidence = {(f"layer{n}", "vertically"): Evidence(units=1) for n in range(571)}
    text = printed(show_verification, conclude([(32, 32)] * 2, evidence))
    assert "clipped: layer0, layer1, layer2, layer3, layer4 and 566 more: " in text
