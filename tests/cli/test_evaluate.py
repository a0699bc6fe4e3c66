import csv
import json
import shutil

import pytest
import torch

from cifar_cnn.models import build_model


def test_predictions_are_a_line_for_each_image(quick_cli, folder_of_examples):
    folder_of_examples()
    done = quick_cli("eval", "first", "--predictions", "all.csv", "--json")
    assert done.returncode == 0, done.stderr
    with open("all.csv", encoding="utf-8", newline="") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "true", "predicted", "probability", "correct"]
    assert len(rows) == 12
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    assert all(row["true"] in row["file"] for row in rows)
    assert {row["correct"] for row in rows} <= {"true", "false"}
    assert all((row["correct"] == "true") == (row["true"] == row["predicted"]) for row in rows)
    right = sum(row["correct"] == "true" for row in rows)
    assert json.loads(done.stdout)["accuracy"] == right / 12
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)


def test_val_in_the_place_of_test_is_called_so_everywhere(quick_cli, image_folder, tmp_path):
    (image_folder / "test").rename(image_folder / "val")
    data = ("--dataset", "folder", "--data-dir", image_folder, "--epochs", 1, "--batch-size", 12)
    done = quick_cli("train", *data, "--name", "a", "--json")
    assert json.loads(done.stdout)["eval"]["split"] == "val"
    run = tmp_path / "runs" / "a"
    assert ",val," in (run / "metrics.csv").read_text().splitlines()[1]
    assert "Validation set:" in (run / "training.log").read_text()
    assert (run / "best.pt").exists()
    page = (run / "report.html").read_text()
    assert "validation accuracy, 12 images" in page
    assert "test accuracy" not in page
    assert "on 12 val images of folder" in quick_cli("eval", "a").stdout
    done = quick_cli("eval", "a", "--json", "--split", "val")
    assert [json.loads(done.stdout)[key] for key in ("split", "samples")] == ["val", 12]
    done = quick_cli("eval", "a", "--split", "test")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no test split: " in done.stderr


@pytest.fixture
def bare(examples, tmp_path):
    """The arguments for a bare state dict of `baseline` and the classes of the images."""
    torch.manual_seed(0)
    torch.save(build_model("baseline", num_classes=3).state_dict(), tmp_path / "bare.pt")
    return (tmp_path / "bare.pt", "--dataset", "folder", "--data-dir", "images")


def test_what_is_assumed_of_a_bare_state_dict_stands_above_the_result(quick_cli, bare):
    losses = {}
    for name in ("cifar10", "dataset", "0.5/0.5", "0.5,0.5,0.5/0.5,0.5,0.5"):
        done = quick_cli("eval", *bare, "--normalization", name, columns=400)
        first, *_, figures = done.stdout.splitlines()[:3]
        assert f"bare.pt is a bare state dict: it is used with normalization {name} (" in first
        assert "images of 32x32 (height x width)" in first
        assert "in this order, blue, green, red" in first
        losses[name] = figures
    assert losses["0.5/0.5"] == losses["0.5,0.5,0.5/0.5,0.5,0.5"]
    assert len({*losses.values()}) == 3
    done = quick_cli("eval", *bare, "--json")
    assert "normalization cifar10 (mean 0.4914 0.4822 0.4465, std" in done.stderr
    assert f"loss {json.loads(done.stdout)['loss']:.4f}" in losses["cifar10"]
    done = quick_cli("predict", "photo.png", "--checkpoint", *bare, "--normalization", "dataset")
    assert "note: bare.pt is a bare state dict: it is used with normalization dataset (" in (
        done.stderr.replace(f"{bare[0].parent}/", "")
    )


def test_a_class_without_test_images_is_trained_and_evaluated(quick_cli, image_folder):
    shutil.rmtree(image_folder / "test" / "green")
    data = ("--dataset", "folder", "--data-dir", image_folder)
    note = "note: no test images of green: their accuracy is not measured"
    done = quick_cli("train", *data, "--epochs", 1, "--name", "a", "--no-report", columns=200)
    assert done.returncode == 0, done.stderr
    assert note in done.stdout.splitlines()
    shutil.rmtree(image_folder / "train")  # elsewhere there are test images alone
    for lacking in (["green"], ["blue", "green"]):
        shutil.rmtree(image_folder / "test" / lacking[0], ignore_errors=True)
        done = quick_cli("eval", "a", columns=200)
        assert done.returncode == 0, done.stderr
        assert note.replace("green", ", ".join(lacking)) in done.stdout.splitlines()
        rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
        assert all(rows[name][0] == "–" for name in lacking)
