import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.checkpoint import Checkpoint, pack


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
    assert done.stderr == ""
    done = quick_cli("predict", own, "photo.png", "--checkpoint", untrained_file)
    assert "photo.png (resized to 32×32)" in done.stdout
    flags = ("--checkpoint", untrained_file, "--input-size", "32x48")
    done = quick_cli("predict", "photo.png", *flags)
    assert "photo.png (resized to 32×48, height×width)" in done.stdout


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


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["none.png", "--checkpoint", "{file}"], 1, "image none.png does not exist"),
        (
            ["{file}", "--checkpoint", "{file}"],
            1,
            "cannot be read: not a PNG, JPEG, WEBP, BMP or GIF image",
        ),
        (["{file}", "--checkpoint", "none.pt"], 1, "there is no file none.pt"),
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
    flags = ("--checkpoint", untrained_file, "--top", 1, "--explain", "why.png")
    done = quick_cli("predict", *three_bad, *flags)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 12 + 1
    assert Path("why.png").exists()
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
    assert document["error"].startswith("no answer: 3 of the images, the first because: image ")
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
    assert done.stderr == ""
    done = cli("predict", name, "--checkpoint", untrained_file, "--top", 1)
    assert done.stdout.endswith("  a\\udcff.png\n")


def test_explain_draws_each_image_beside_what_its_class_comes_from(
    quick_cli, untrained_file, image_folder
):
    own = image_folder / "test/red/000.png"
    done = quick_cli("predict", own, "--checkpoint", untrained_file, "--explain", "why.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("saved why.png: Grad-CAM on the 4×4 map of convblock4.3\n")
    with Image.open("why.png") as one:
        assert (one.format, one.width) == ("PNG", round(2 * 1.35 * 110))
        small = one.height
    done = quick_cli(
        "predict", image_folder, "--checkpoint", untrained_file, "--top", 1, "--explain", "all.PNG"
    )
    assert done.stdout.splitlines()[-1].endswith("convblock4.3, the first 16 of 48 images")
    with Image.open("all.PNG") as sixteen:
        assert sixteen.height == pytest.approx(8 * small, abs=8)  # two images a row


def test_the_picture_is_of_the_answers_that_are_printed(quick_cli, untrained_file, image_folder):
    from cifar_cnn import explain

    images = [image_folder / "test/red/000.png", image_folder / "test/blue/001.png"]
    words = ["predict", *images, "--checkpoint", untrained_file, "--json"]
    explained = json.loads(quick_cli(*words, "--explain", "why.png").stdout)
    assert explained == json.loads(quick_cli(*words).stdout) | {"explain": "why.png"}
    assert Path("why.png").read_bytes() == explain(images, untrained_file)


def test_an_image_on_standard_input_is_predicted_and_explained(
    untrained_file, image_folder, tmp_path
):
    picture = tmp_path / "why.png"
    words = ["predict", "-", "--checkpoint", untrained_file, "--explain", picture]
    done = subprocess.run(
        [sys.executable, "-m", "cifar_cnn", *words],
        input=(image_folder / "test/red/000.png").read_bytes(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines()[0] == "-"
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_an_image_is_never_replaced_by_its_explanation(quick_cli, untrained_file, image_folder):
    own = image_folder / "test/red/000.png"
    before = own.read_bytes()
    for given in (own, own.parent):
        done = quick_cli("predict", given, "--checkpoint", untrained_file, "--explain", own)
        assert done.returncode == 1
        assert (
            done.stderr == f"cifar-cnn: {own} is one of the images: give --explain another name\n"
        )
        assert own.read_bytes() == before


def test_a_network_without_a_map_cannot_be_explained(quick_cli, image_folder, tmp_path):
    (tmp_path / "flat.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 3))\n"
    )
    torch.manual_seed(0)
    weights = {"1.weight": torch.randn(3, 3072), "1.bias": torch.zeros(3)}
    settings = resolve_settings({"dataset": "folder", "model": "flat.py:net"})
    checkpoint = Checkpoint(
        model="flat.py:net",
        classes=("blue", "green", "red"),
        settings=settings,
        metrics={},
        state_dict=weights,
    )
    (tmp_path / "flat.pt").write_bytes(pack(checkpoint))
    words = ["predict", image_folder, "--checkpoint", "flat.pt", "--model", "flat.py:net"]
    done = quick_cli(*words, "--explain", "why.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cifar-cnn: Grad-CAM needs a map before")
    assert len(done.stderr.splitlines()) == 1
    assert not Path("why.png").exists()


STANDARDIZE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x):
        x = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)
        return self.fc(self.conv(x).relu().mean((2, 3)))
"""


@pytest.fixture
def standardize(tmp_path, image_folder):
    """A bare state dict of a network whose answer for an image of one color is NaN."""
    from cifar_cnn.models import build_model

    (tmp_path / "net.py").write_text(STANDARDIZE)
    torch.manual_seed(0)
    torch.save(build_model(f"{tmp_path / 'net.py'}:Net", 3).state_dict(), tmp_path / "bare.pt")
    Image.new("RGB", (32, 32)).save(tmp_path / "blank.png")
    return ("--model", "net.py", "--dataset", "folder", "--data-dir", image_folder)


def test_an_answer_that_is_no_number_does_not_hide_the_others(quick_cli, standardize, image_folder):
    good = image_folder / "test" / "red" / "000.png"
    images = ("blank.png", good, "--checkpoint", "bare.pt", *standardize)
    done = quick_cli("predict", *images, "--top", 1)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].endswith(str(good))
    assert done.stdout.count("\n") == 1
    assert "cifar-cnn: the network's answer for blank.png is NaN\n" in done.stderr
    document = json.loads(quick_cli("predict", *images, "--json").stdout)
    assert [each["file"] for each in document["predictions"]] == [str(good)]
    assert [each["file"] for each in document["unreadable"]] == ["blank.png"]


@pytest.mark.filterwarnings("ignore::cifar_cnn.errors.NetworkWarning")
def test_training_goes_on_and_an_evaluation_names_the_image_and_counts_it_as_wrong(
    quick_cli, standardize, image_folder
):
    blank = image_folder / "test" / "blue" / "001.png"
    Image.new("RGB", (32, 32)).save(blank)
    flags = ("--epochs", 2, "--batch-size", 9, "--precision", "fp32", "--name", "a")
    with pytest.warns(match="answer is NaN for 1 of 12 images"):
        assert quick_cli("train", *standardize, *flags).returncode == 0
    assert "nan" not in Path("runs/a/metrics.csv").read_text()
    with pytest.warns(match=f"answer is NaN for 1 of 12 images, which counts as wrong: {blank}$"):
        done = quick_cli("eval", "bare.pt", *standardize, "--predictions", "all.csv", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["samples"] == 12
    assert document["per_class"]["blue"]["samples"] == 4
    assert sum(map(sum, document["confusion"])) == 11
    assert f"{blank},blue,,nan,false\n" in Path("all.csv").read_text()
