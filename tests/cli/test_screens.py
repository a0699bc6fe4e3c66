"""What people read fits their console."""

import re

import pytest

from cifar_cnn.models import BUILT_IN
from cifar_cnn.settings import Settings


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("eval first", ["blue", "green", "red", "true class (row) by predicted class"]),
        ("models", ["baseline", "197,922", "13.40 M", "25×25 map", "49×49 output", "tuned"]),
        ("predict photo.png --checkpoint first", ["photo.png", "blue", "█", "%"]),
        ("receptive-field", ["convblock1.0", "convblock4.3"]),
        ("runs", ["first", "second", "finished"]),
        ("runs compare first second", ["first", "second"]),
        ("settings", ["epochs", "batch_size"]),
        ("summary", ["convblock1.0", "197,922", "2.02", "2.78", "budget met"]),
    ],
)
def test_a_table_is_no_wider_than_the_screen(quick_cli, examples, line, texts, columns):
    done = quick_cli(*line.split(), columns=columns)
    assert (done.returncode, done.stderr) == (0, "")
    for text in texts:
        assert text in done.stdout
    sentences = re.compile(r"\w\)?: ")
    table = [each for each in done.stdout.splitlines() if not sentences.search(each)]
    assert max(map(len, table)) <= columns


def test_the_built_in_networks_are_shown_with_what_they_reach(quick_cli):
    lines = quick_cli("models", columns=80).stdout.splitlines()
    for network in BUILT_IN.values():
        for epochs, accuracy, n in network.reached:
            reached = f"{accuracy:.2%}, {epochs} epochs, n = {n}"
            assert any(reached in line for line in lines)


def test_every_setting_is_a_row_and_a_dash_means_none(quick_cli):
    lines = quick_cli("settings", columns=120).stdout.splitlines()
    rows = {line.split(" ")[0]: line.split()[1:4] for line in lines if line}
    assert set(Settings.model_fields) - {"recipe"} <= rows.keys()
    assert rows["model_arg"] == ["–"] * 3


def test_with_one_class_an_image_is_a_line(quick_cli, examples):
    lines = quick_cli("predict", "images", "--checkpoint", "first", "--top", 1).stdout.splitlines()
    assert len(lines) == 48
    assert lines[0].replace("\\", "/").endswith("images/test/blue/000.png")


def test_a_class_without_images_shows_a_dash(quick_cli, examples):
    done = quick_cli("eval", "first", "--limit-eval", 2)
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("red ")]
    assert row.split()[:2] == ["red", "–"]
    assert row.split()[-1] == "0"


def test_people_are_told_of_an_export_what_they_need_to_use_it(quick_cli, folder_of_examples):
    folder_of_examples()
    lines = quick_cli("export", "first", "--format", "safetensors").stdout.splitlines()
    assert lines[0].replace("\\", "/") == (
        "saved runs/first/model.safetensors: safetensors, 0.79 MB"
    )
    assert lines[1] == "input: images (batch, 3, 32, 32), normalized float32"
    assert lines[2] == "output: log_probabilities (batch, 3), float32"
    assert lines[3] == "largest difference from PyTorch on 100 images: 0"
    assert lines[4].startswith("latency: ")
    assert lines[5] == "arithmetic: fp32, as predict's unless --precision says otherwise"
