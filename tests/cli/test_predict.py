import json
import subprocess
import sys

import pytest
from PIL import Image


def test_json_says_class_probability_and_what_was_resized(quick_cli, untrained_file, image_folder):
    Image.new("RGB", (640, 480), (9, 99, 200)).save("photo.png")
    own = image_folder / "test/red/000.png"
    done = quick_cli("predict", own, "photo.png", "--checkpoint", untrained_file, "--json")
    assert done.returncode == 0
    first, second = json.loads(done.stdout)["predictions"]
    assert (first["file"], first["resized"]) == (str(own), False)
    assert (second["file"], second["resized"]) == ("photo.png", True)
    assert {top["class"] for top in first["top"]} == {"blue", "green", "red"}
    assert sum(top["probability"] for top in first["top"]) == pytest.approx(1)
    assert "photo.png (resized to 32×32)" in done.stderr


@pytest.mark.parametrize("columns", [40, 80])
def test_the_bars_fit_the_screen(quick_cli, untrained_file, columns):
    Image.new("RGB", (32, 32)).save("a.png")
    done = quick_cli("predict", "a.png", "--checkpoint", untrained_file, columns=columns)
    name, *rows = done.stdout.splitlines()
    assert name == "a.png"
    assert len(rows) == 3
    assert max(map(len, rows)) <= columns
    assert all("█" in row and row.endswith("%") for row in rows)


def test_with_one_class_an_image_is_a_line(quick_cli, untrained_file, image_folder):
    done = quick_cli("predict", image_folder, "--checkpoint", untrained_file, "--top", 1)
    lines = done.stdout.splitlines()
    assert len(lines) == 48
    assert lines[0].endswith(str(image_folder / "test/blue/000.png"))


def test_an_image_comes_through_standard_input(untrained_file, image_folder):
    done = subprocess.run(
        [sys.executable, "-m", "cifar_cnn", "predict", "-", "--checkpoint", untrained_file],
        input=(image_folder / "test/red/000.png").read_bytes(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines()[0] == "-"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["none.png", "--checkpoint", "{file}"], 1, "image none.png does not exist"),
        (
            ["{file}", "--checkpoint", "{file}"],
            1,
            "cannot be read: not a PNG, JPEG, WEBP, BMP or GIF image",
        ),
        (["{file}", "--checkpoint", "none.pt"], 1, "cannot be read"),
    ],
)
def test_a_mistake_ends_in_one_line_and_its_exit_status(
    quick_cli, untrained_file, arguments, status, message
):
    done = quick_cli("predict", *(each.format(file=untrained_file) for each in arguments))
    assert done.returncode == status
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
