import json
import os
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


@pytest.fixture
def three_bad(image_folder):
    """A folder of twelve good images and one bad one, a missing file, an empty folder."""
    (image_folder / "test/blue/bad.png").write_text("no image")
    (image_folder / "empty").mkdir()
    return [image_folder / "test", "none.png", image_folder / "empty"]


def test_bad_files_do_not_stop_it_and_are_listed_at_the_end(quick_cli, untrained_file, three_bad):
    done = quick_cli("predict", *three_bad, "--checkpoint", untrained_file, "--top", 1)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 12
    assert done.stderr.splitlines() == [
        f"cifar-cnn: image {three_bad[0]}/blue/bad.png cannot be read: "
        "not a PNG, JPEG, WEBP, BMP or GIF image",
        "cifar-cnn: image none.png does not exist",
        f"cifar-cnn: folder {three_bad[2]} has no images (PNG, JPEG, WEBP, BMP or GIF)",
    ]


def test_json_is_one_document_of_what_succeeded_and_what_did_not(
    quick_cli, untrained_file, three_bad
):
    done = quick_cli("predict", *three_bad, "--checkpoint", untrained_file, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert len(document["predictions"]) == 12
    assert document["exit_status"] == 1
    assert document["error"].startswith("not read: 3 of the images, the first because: image ")
    assert [each["file"] for each in document["unreadable"]] == [
        f"{three_bad[0]}/blue/bad.png",
        "none.png",
        str(three_bad[2]),
    ]
    assert document["unreadable"][1]["reason"] == "image none.png does not exist"


@pytest.mark.skipif(os.name == "nt", reason="needs exec")
def test_a_closed_standard_input_is_one_line(untrained_file):
    program = (
        "import os, sys; os.close(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    words = ["-m", "cifar_cnn", "predict", "-", "--checkpoint", untrained_file]
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "cifar-cnn: standard input is closed or empty: there is no image in it\n"


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_not_utf8_goes_through_json(cli, untrained_file, image_folder, tmp_path):
    name = os.fsdecode(b"a\xff.png")
    (tmp_path / name).write_bytes((image_folder / "test/red/000.png").read_bytes())
    done = cli("predict", name, "--checkpoint", untrained_file, "--top", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"][0]["file"] == name
    assert done.stderr.endswith("  a\\udcff.png\n")
