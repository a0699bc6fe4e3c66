"""Runs are named alike in every command."""

import shlex
import shutil

import pytest

from cifar_cnn.storage.files import file_lock


@pytest.fixture
def root(folder_of_examples, tmp_path):
    """The folder that commands run in, with the runs `first` and `second`, and `images`."""
    folder_of_examples()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("eval first", "mine/first/model.pt: baseline on 12 test images of folder"),
        ("predict photo.png --checkpoint first --top 1", "photo.png"),
        ("export first --format safetensors", "saved mine/first/model.safetensors"),
        ("report first --compare second", "saved mine/first/report.html"),
        ("runs show first", "mine/first (finished)"),
        ("runs compare first second", "second"),
        ("train --resume first", "mine/first is already finished"),
    ],
)
def test_a_run_is_found_by_its_name_in_the_folder_of_the_runs(quick_cli, root, line, text):
    (root / "runs").rename(root / "mine")
    done = quick_cli(*line.split(), "--output-dir", "mine", columns=200)
    assert (done.returncode, done.stderr) == (0, "")
    assert text in done.stdout.replace("\\", "/")


@pytest.mark.parametrize("name", ["first", "runs/first", "runs/first/", "runs/first/model.pt"])
def test_a_run_is_named_by_its_name_its_folder_or_its_file(quick_cli, examples, name):
    done = quick_cli("eval", name)
    assert done.stdout.replace("\\", "/").startswith("runs/first/model.pt: baseline"), done.stderr


def test_a_path_that_exists_wins_over_a_name(quick_cli, root):
    shutil.copytree(root / "runs" / "first", root / "first")
    (root / "first" / "best.pt").write_bytes((root / "first" / "model.pt").read_bytes())
    for name, file in (("first", "first/model.pt"), ("first/best.pt", "first/best.pt")):
        done = quick_cli("eval", name)
        assert done.stdout.replace("\\", "/").startswith(f"{file}: baseline"), done.stderr


@pytest.mark.parametrize(
    "line", ["summary first", "report first", "train --resume first", "runs show first"]
)
def test_a_run_is_found_though_a_folder_of_its_name_lies_here(quick_cli, root, line):
    shutil.copytree(root / "images", root / "first")
    done = quick_cli(*line.split(), columns=200)
    assert done.returncode == 0, done.stderr
    assert "runs/first" in done.stdout.replace("\\", "/")


def test_a_run_that_goes_on_says_so(quick_cli, root):
    (root / "runs" / "first" / "model.pt").unlink()
    with file_lock(root / "runs" / "first" / ".lock").acquire(timeout=1):
        done = quick_cli("eval", "first")
    assert done.returncode == 1
    message = "run runs/first goes on and has no model.pt yet: wait for its end"
    assert message in done.stderr.replace("\\", "/")


@pytest.mark.parametrize("name", [":cat:", "[red]x", "_first", "two words", "$a$"])
def test_a_name_is_shown_as_it_is(quick_cli, root, name):
    shutil.copytree(root / "runs" / "first", root / "runs" / name)
    compare = ["runs", "compare", name, "first"]
    for line in (["runs"], ["runs", "show", name], ["eval", name], compare):
        done = quick_cli(*line, columns=200)
        assert (done.returncode, done.stderr) == (0, "")
        assert name in done.stdout
    (root / "runs" / name / "model.pt").unlink()
    words = shlex.split(quick_cli("eval", name).stderr.partition("go on with ")[2])
    assert words[:4] == ["cifar-cnn", "train", "--resume", f"runs/{name},"]


def test_a_class_is_shown_as_it_is(quick_cli, root):
    for split in ("train", "test"):
        (root / "images" / split / "red").rename(root / "images" / split / ":cat:")
    flags = ("--dataset", "folder", "--data-dir", "images", "--epochs", 1, "--name", "a")
    assert quick_cli("train", *flags, "--no-report").returncode == 0
    assert quick_cli("eval", "a", columns=200).stdout.count(":cat:") == 2
