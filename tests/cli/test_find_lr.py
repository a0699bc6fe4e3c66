import io
import json
import re

import pytest
from PIL import Image


def test_the_test_suggests_a_rate_near_the_recipes_and_writes_its_picture_alone(cli, tmp_path):
    flags = ("--dataset", "synthetic", "--limit-train", 600, "--batch-size", 16)
    done = cli("train", *flags, "--name", "a", "--find-lr", "--plot", "rates.png", "--json")
    assert done.returncode == 0, done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["rates.png"]
    picture = Image.open(io.BytesIO((tmp_path / "rates.png").read_bytes()))
    assert (picture.format, picture.width > 900) == ("PNG", True)
    document = json.loads(done.stdout)
    assert document["lr"] == 0.2
    scaled = 0.2 * 16 / 128  # as many times less as the batch is smaller (Goyal et al., 2017)
    assert scaled / 4 < document["suggested_lr"] < scaled * 4
    assert list(document["curve"][0]) == ["lr", "loss", "smoothed_loss"]
    assert done.stderr == ""


def test_people_see_how_the_suggestion_was_found(quick_cli, image_folder):
    flags = ("--dataset", "folder", "--data-dir", image_folder, "--batch-size", 8)
    done = quick_cli("train", *flags, "--find-lr", "--plot", "rates.png")
    number = r"[0-9.e-]+"
    told = [
        f"loss falls fastest at learning rate {number}",
        f"loss is lowest at {number}",
        rf"suggestion, midway between the two, for a peak: --lr {number} \(now 0.2\)",
        rf"loss (diverges from|does not diverge up to) {number}",
        "saved rates.png",
    ]
    lines = done.stdout.splitlines()
    assert [bool(re.fullmatch(*pair)) for pair in zip(told, lines, strict=True)] == 5 * [True]


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        ("--find-lr --resume auto --name a", 2, "--find-lr makes no run: leave --resume out"),
        ("--find-lr --dry-run", 2, "--find-lr makes no run: leave --dry-run out"),
        ("--find-lr --max-time 0", 2, "--find-lr makes no run: leave --max-time out"),
        ("--find-lr --plot x", 2, "--plot writes a PNG picture: x has to end in .png"),
        ("--plot x.png", 2, "--plot is for --find-lr: add it"),
        ("--find-lr --plot none/x.png", 1,
         "none/x.png cannot be written: there is no folder none"),
        ("--find-lr --dataset folder --data-dir none", 1, "none"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_nothing_is_written(quick_cli, tmp_path, flags, status, said):
    done = quick_cli("train", "--dataset", "synthetic", *flags.split())
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.replace("\\", "/").startswith("cifar-cnn: ")
    assert said in done.stderr.replace("\\", "/")
    assert len(done.stderr.splitlines()) == 1
    assert [*tmp_path.iterdir()] == []
