import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from cifar_cnn import explain
from cifar_cnn.models import build_model

RED, BLUE = "images/test/red/000.png", "images/test/blue/001.png"
FIRST = ("--checkpoint", "first")


@pytest.fixture
def predict(quick_cli, folder_of_examples):
    """Classify images with the run `first`, in a copy of the folder of examples."""
    folder_of_examples()
    return lambda *words: quick_cli("predict", *words, *FIRST)


def test_json_says_class_probability_and_what_was_resized(predict):
    Image.new("RGB", (640, 480), (9, 99, 200)).save("large.png")
    done = predict(RED, "large.png", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = json.loads(done.stdout)["predictions"]
    assert (first["file"], first["resized"]) == (RED, False)
    assert (second["file"], second["resized"]) == ("large.png", True)
    assert {top["class"] for top in first["top"]} == {"blue", "green", "red"}
    assert sum(top["probability"] for top in first["top"]) == pytest.approx(1)
    assert "large.png (resized to 32×32)" in predict(RED, "large.png").stdout
    text = predict("large.png", "--input-size", "32x48").stdout
    assert "large.png (resized to 32×48, height×width)" in text


@pytest.fixture
def three_bad(predict):
    """A folder of twelve good images and one bad one, a missing file, an empty folder."""
    Path("images/test/blue/bad.png").write_text("no image")
    Path("empty").mkdir()
    return ["images/test", "none.png", "empty"]


def test_bad_files_do_not_stop_it_and_are_listed_at_the_end(predict, three_bad):
    done = predict(*three_bad, "--top", 1, "--explain", "why.png")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 12 + 1
    assert Path("why.png").exists()
    assert done.stderr.splitlines() == [
        "cifar-cnn: image images/test/blue/bad.png cannot be read: "
        "not a PNG, JPEG, WEBP, BMP or GIF image",
        "cifar-cnn: image none.png does not exist",
        "cifar-cnn: folder empty has no images (PNG, JPEG, WEBP, BMP or GIF)",
    ]
    done = predict(*three_bad, "--json")
    document = json.loads(done.stdout)
    assert len(document["predictions"]) == 12
    assert done.returncode == document["exit_status"] == 1
    assert document["error"].startswith("no answer: 3 of the images, the first because: image ")
    bad = [each["file"] for each in document["unreadable"]]
    assert bad == ["images/test/blue/bad.png", "none.png", "empty"]
    assert document["unreadable"][1]["reason"] == "image none.png does not exist"


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_not_utf8_goes_through_json(cli, predict, tmp_path):
    name = os.fsdecode(b"a\xff.png")
    Path(RED).rename(name)
    done = cli("predict", name, *FIRST, "--top", 1, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["predictions"][0]["file"] == name
    assert cli("predict", name, *FIRST, "--top", 1).stdout.endswith("  a\\udcff.png\n")


def test_explain_draws_each_image_beside_what_its_class_comes_from(predict):
    done = predict(RED, "--explain", "why.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("saved why.png: Grad-CAM on the 4×4 map of convblock4.3\n")
    with Image.open("why.png") as one:
        assert one.format == "PNG"
        assert one.width > 1.5 * one.height, "the image, and beside it the same under its heat"
        small = one.height
    done = predict("images", "--top", 1, "--explain", "all.PNG")
    assert done.stdout.splitlines()[-1].endswith("convblock4.3, the first 16 of 48 images")
    with Image.open("all.PNG") as sixteen:
        assert sixteen.height == pytest.approx(8 * small, abs=8)  # two images a row


def test_the_picture_is_of_the_answers_that_are_printed(predict):
    explained = json.loads(predict(RED, BLUE, "--json", "--explain", "why.png").stdout)
    assert explained == json.loads(predict(RED, BLUE, "--json").stdout) | {"explain": "why.png"}
    assert Path("why.png").read_bytes() == explain([RED, BLUE], "runs/first/model.pt")


@pytest.mark.parametrize("image", [RED, "images/test/red"])
def test_an_image_is_never_replaced_by_its_explanation(predict, image):
    before = Path(RED).read_bytes()
    done = predict(image, "--explain", RED)
    message = f"cifar-cnn: {RED} is one of the images: give --explain another name\n"
    assert (done.returncode, done.stderr) == (1, message)
    assert Path(RED).read_bytes() == before


def test_an_image_on_standard_input_is_predicted_and_explained(predict, tmp_path):
    words = ["predict", "-", *FIRST, "--explain", "why.png"]
    done = subprocess.run(
        [sys.executable, "-m", "cifar_cnn", *words],
        input=Path(RED).read_bytes(),
        capture_output=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines()[0] == "-"
    with Image.open("why.png") as image:
        assert image.format == "PNG"


NETWORKS = """
from torch import nn

class Flat(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3072, 3))

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
def own(quick_cli, folder_of_examples, tmp_path):
    """Run a command with a state dict of an own network; `Net`'s answer for one color is NaN."""
    folder_of_examples()
    (tmp_path / "net.py").write_text(NETWORKS)
    Image.new("RGB", (32, 32)).save("blank.png")
    torch.manual_seed(0)
    for name in ("Flat", "Net"):
        torch.save(build_model(f"net.py:{name}", 3).state_dict(), f"{name}.pt")

    def run(name, *words):
        data = ("--dataset", "folder", "--data-dir", "images")
        return quick_cli(*words, "--model", f"net.py:{name}", *data)

    return run


def test_a_network_without_a_map_cannot_be_explained(own):
    done = own("Flat", "predict", RED, "--checkpoint", "Flat.pt", "--explain", "why.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cifar-cnn: Grad-CAM needs a map before" in done.stderr
    assert not Path("why.png").exists()


def test_an_answer_that_is_no_number_does_not_hide_the_others(own):
    words = ("predict", "blank.png", RED, "--checkpoint", "Net.pt")
    done = own("Net", *words, "--top", 1)
    assert done.returncode == 1
    assert done.stdout.endswith(f"{RED}\n")
    assert done.stdout.count("\n") == 1
    assert "cifar-cnn: the network's answer for blank.png is NaN\n" in done.stderr
    document = json.loads(own("Net", *words, "--json").stdout)
    assert [each["file"] for each in document["predictions"]] == [RED]
    assert [each["file"] for each in document["unreadable"]] == ["blank.png"]


@pytest.mark.filterwarnings("ignore::cifar_cnn.errors.NetworkWarning")
def test_training_goes_on_and_an_evaluation_names_the_image_and_counts_it_as_wrong(own):
    Path("blank.png").rename(BLUE)
    flags = ("--epochs", 2, "--batch-size", 9, "--precision", "fp32", "--name", "a", "--no-report")
    with pytest.warns(match="answer is NaN for 1 of 12 images"):
        assert own("Net", "train", *flags).returncode == 0
    assert "nan" not in Path("runs/a/metrics.csv").read_text()
    with pytest.warns(match=f"answer is NaN for 1 of 12 images, which counts as wrong: {BLUE}$"):
        done = own("Net", "eval", "Net.pt", "--predictions", "all.csv", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["samples"] == 12
    assert document["per_class"]["blue"]["samples"] == 4
    assert sum(map(sum, document["confusion"])) == 11
    assert f"{BLUE},blue,,nan,false\n" in Path("all.csv").read_text()
