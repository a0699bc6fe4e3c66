import csv
import json
import shutil

import pytest

from cifar_cnn import resolve_settings, train


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, make_image_folder):
    """The model of a run of one epoch, with its images beside it; no test may change them."""
    root = tmp_path_factory.mktemp("evaluated")
    values = {"dataset": "folder", "data_dir": make_image_folder(root / "images")}
    settings = resolve_settings(values | {"epochs": 1, "batch_size": 8, "precision": "fp32"})
    return train(settings, root / "run", report=False).model_file


def test_both_spellings_do_the_same_to_the_byte(quick_cli, model_file):
    for arguments in ([model_file], [model_file, "--json"], ["--help"], ["--nonsense"], []):
        assert quick_cli("evaluate", *arguments) == quick_cli("eval", *arguments)


@pytest.mark.parametrize("columns", [40, 80])
def test_the_tables_fit_the_screen(quick_cli, model_file, columns):
    done = quick_cli("eval", model_file, columns=columns)
    assert done.returncode == 0
    table = [line for line in done.stdout.splitlines() if str(model_file) not in line]
    for name in ("blue", "green", "red"):
        assert any(line.startswith(name) for line in table)
    assert max(len(line) for line in table) <= max(columns, 75)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["none.pt"], 1, "there is no file none.pt"),
        (["text.pt"], 1, "not a checkpoint"),
        (["{model}", "--split", "val"], 2, "no validation split"),
        (["{model}", "--dataset", "synthetic"], 1, "was trained on the classes"),
        (["{model}", "--model", "basline"], 2, "did you mean 'baseline'"),
        (["{model}", "--limit-eval", "0"], 2, "setting limit_eval = 0 is invalid"),
    ],
)
def test_a_mistake_ends_in_one_line_and_its_exit_status(
    quick_cli, model_file, tmp_path, arguments, status, message
):
    (tmp_path / "text.pt").write_text("hello")
    done = quick_cli("eval", *(each.format(model=model_file) for each in arguments), "--json")
    assert done.returncode == status, done.stderr
    assert json.loads(done.stdout)["exit_status"] == status
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_class_without_images_shows_a_dash(quick_cli, model_file):
    done = quick_cli("eval", model_file, "--limit-eval", 2)
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("red ")]
    assert row.split()[:2] == ["red", "–"]
    assert row.split()[-1] == "0"


def test_predictions_are_a_line_for_each_image(quick_cli, model_file):
    done = quick_cli("eval", model_file, "--predictions", "all.csv", "--json")
    assert done.returncode == 0, done.stderr
    with open("all.csv", encoding="utf-8", newline="") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "true", "predicted", "probability", "correct"]
    assert [row["file"] for row in rows] == sorted(
        str(path) for path in model_file.parents[1].glob("images/test/*/*.png")
    )
    assert all(row["true"] in row["file"] for row in rows)
    assert {row["correct"] for row in rows} <= {"true", "false"}
    assert all((row["correct"] == "true") == (row["true"] == row["predicted"]) for row in rows)
    right = sum(row["correct"] == "true" for row in rows)
    assert json.loads(done.stdout)["accuracy"] == right / 12
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)


def test_the_title_of_a_small_confusion_matrix_is_one_line(quick_cli, untrained_file, image_folder):
    done = quick_cli("eval", untrained_file, "--data-dir", image_folder)
    title = "true class (row) by predicted class (column)"
    lines = done.stdout.splitlines()
    assert title in lines
    assert lines[lines.index(title) + 1].split() == ["0", "1", "2"]


def test_val_in_the_place_of_test_is_called_so_everywhere(quick_cli, image_folder, tmp_path):
    (image_folder / "test").rename(image_folder / "val")
    data = ("--dataset", "folder", "--data-dir", image_folder, "--epochs", 1, "--batch-size", 12)
    done = quick_cli("train", *data, "--name", "a")
    assert done.returncode == 0, done.stderr
    assert "val accuracy" in done.stdout
    done = quick_cli("train", "--resume", "runs/a", "--json")
    assert json.loads(done.stdout)["eval"]["split"] == "val"
    run = tmp_path / "runs" / "a"
    assert ",val," in (run / "metrics.csv").read_text().splitlines()[1]
    assert "Validation set:" in (run / "training.log").read_text()
    assert (run / "best.pt").exists()
    page = (run / "report.html").read_text()
    assert "validation accuracy, 12 images" in page
    assert "test accuracy" not in page
    assert quick_cli("report", run, "--markdown", "handed-in.md").returncode == 0
    handed_in = (tmp_path / "handed-in.md").read_text()
    assert "validation accuracy" in handed_in
    assert "test accuracy" not in handed_in
    for flags in ([], ["--split", "val"]):
        done = quick_cli("eval", run / "model.pt", "--json", *flags)
        document = json.loads(done.stdout)
        assert (document["split"], document["samples"]) == ("val", 12)
    assert "on 12 val images of folder" in quick_cli("eval", run / "model.pt").stdout
    done = quick_cli("eval", run / "model.pt", "--split", "test")
    assert done.returncode == 2
    assert "no test split: " in done.stderr
    assert done.stderr.count("\n") == 1


def test_class_folders_alone_are_split_alike_in_training_and_evaluation(
    quick_cli, image_folder, tmp_path
):
    data = ("--dataset", "folder", "--data-dir", image_folder / "train", "--batch-size", 9)
    done = quick_cli("train", *data, "--epochs", 1, "--name", "a")
    assert done.returncode == 1
    assert "--test-size 0.2" in done.stderr
    assert not (tmp_path / "runs").exists()
    for seed in (1, 2):
        flags = ("--test-size", 0.25, "--seed", seed, "--epochs", 1, "--no-report")
        done = quick_cli("train", *data, *flags, "--name", seed, "--json")
        trained = json.loads(done.stdout)["eval"]
        done = quick_cli("eval", f"runs/{seed}/model.pt", "--json", "--predictions", f"{seed}.csv")
        document = json.loads(done.stdout)
        assert (document["split"], document["samples"]) == ("test", 9)
        assert document["accuracy"] == trained["accuracy"]
    files = [
        [line.split(",")[0] for line in (tmp_path / f"{seed}.csv").read_text().splitlines()]
        for seed in (1, 2)
    ]
    assert files[0] == files[1]
    quick_cli("eval", "runs/1/model.pt", "--split", "train", "--predictions", "train.csv")
    trained_on = {line.split(",")[0] for line in (tmp_path / "train.csv").read_text().splitlines()}
    assert trained_on & set(files[0]) == {"file"}
    assert len(trained_on) == 1 + 27


@pytest.fixture
def bare(image_folder, tmp_path):
    """A bare state dict of `baseline` for the classes of the images."""
    import torch

    from cifar_cnn.models import build_model

    torch.manual_seed(0)
    torch.save(build_model("baseline", num_classes=3).state_dict(), tmp_path / "bare.pt")
    return ("bare.pt", "--dataset", "folder", "--data-dir", image_folder)


def test_what_is_assumed_of_a_bare_state_dict_stands_above_the_result(quick_cli, bare):
    assert quick_cli("eval", *bare, "--normalization", "imagenet").returncode == 2
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


def test_a_checkpoint_keeps_the_normalization_that_it_was_trained_with(quick_cli, model_file):
    for command in (["eval", model_file], ["predict", "a.png", "--checkpoint", model_file]):
        done = quick_cli(*command, "--normalization", "cifar10")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "leave --normalization out" in done.stderr


def test_a_bare_state_dict_predicts_with_the_classes_of_its_data(quick_cli, bare, image_folder):
    file, *data = bare
    image = image_folder / "test/red/000.png"
    answers = {}
    for name in ("cifar10", "dataset"):
        flags = ("--checkpoint", file, *data, "--normalization", name, "--json")
        done = quick_cli("predict", image, *flags)
        assert done.returncode == 0, done.stderr
        assert f"note: bare.pt is a bare state dict: it is used with normalization {name}" in (
            done.stderr
        )
        answers[name] = json.loads(done.stdout)["predictions"][0]["top"]
        assert {each["class"] for each in answers[name]} == {"blue", "green", "red"}
    assert answers["cifar10"] != answers["dataset"]
    done = quick_cli("predict", image, "--checkpoint", file)
    assert "the data set needs (1, 10)" in done.stderr or "belongs to another" in done.stderr


def test_a_class_without_test_images_is_trained_and_evaluated(quick_cli, image_folder, tmp_path):
    shutil.rmtree(image_folder / "test" / "green")
    data = ("--dataset", "folder", "--data-dir", image_folder)
    note = "note: no test images of green: their accuracy is not measured"
    done = quick_cli("train", *data, "--epochs", 1, "--name", "a", columns=200)
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
