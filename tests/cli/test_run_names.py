import shlex
import shutil

import pytest

from cifar_cnn import resolve_settings, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_image_folder):
    """A folder with images and a finished run of one epoch; no test may change it."""
    root = tmp_path_factory.mktemp("finished")
    values = {
        "dataset": "folder",
        "data_dir": make_image_folder(root / "images"),
        "epochs": 1,
        "batch_size": 8,
        "precision": "fp32",
    }
    train(resolve_settings(values), root / "run", report=False)
    return root


@pytest.fixture
def root(finished, tmp_path):
    """The folder that commands run in: `runs/t80` is a finished run."""
    shutil.copytree(finished / "run", tmp_path / "runs" / "t80")
    shutil.copytree(finished / "images", tmp_path / "images")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("eval t80", "mine/t80/model.pt: baseline on 12 test images of folder"),
        ("predict images/test/red --checkpoint t80 --top 1", "images/test/red/003.png"),
        ("export t80 --format safetensors", "saved mine/t80/model.safetensors"),
        ("report t80 --compare t80", "saved mine/t80/report.html"),
        ("runs show t80", "mine/t80 (finished)"),
        ("train --resume t80", "mine/t80 is already finished"),
    ],
)
def test_a_run_is_named_alike_in_every_command(quick_cli, root, line, said):
    (root / "runs").rename(root / "mine")
    done = quick_cli(*line.split(), "--output-dir", "mine", columns=200)
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout.replace("\\", "/")


@pytest.mark.parametrize("name", ["t80", "runs/t80", "runs/t80/", "runs/t80/model.pt"])
def test_a_run_is_named_by_its_name_its_folder_or_its_file(quick_cli, root, name):
    done = quick_cli("eval", name)
    assert done.stdout.replace("\\", "/").startswith("runs/t80/model.pt: baseline"), done.stderr


def test_a_path_that_exists_wins_over_a_name(quick_cli, root):
    shutil.copytree(root / "runs" / "t80", root / "t80")
    (root / "t80" / "best.pt").write_bytes((root / "t80" / "model.pt").read_bytes())
    for name, file in (("t80", "t80/model.pt"), ("t80/best.pt", "t80/best.pt")):
        done = quick_cli("eval", name)
        assert done.stdout.replace("\\", "/").startswith(f"{file}: baseline"), done.stderr
    (root / "t80").rename(root / "runs" / "none.pt")
    assert "there is no file" in quick_cli("eval", "../none.pt").stderr


@pytest.mark.parametrize(
    "line",
    [
        "predict t80/test/red --checkpoint t80 --top 1",
        "summary t80",
        "report t80",
        "train --resume t80",
    ],
)
def test_a_run_is_found_though_a_folder_of_its_name_lies_here(quick_cli, root, line):
    shutil.copytree(root / "images", root / "t80")
    done = quick_cli(*line.split(), columns=200)
    assert done.returncode == 0, done.stderr
    assert "runs/t80" in done.stdout.replace("\\", "/") or line.startswith("predict")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("eval t8", "there is no run runs/t8 (did you mean 't80'?)"),
        ("eval runs/t8/model.pt", "there is no file runs/t8/model.pt (did you mean 't80'?)"),
        ("eval runs/t80/modle.pt", "there is no file runs/t80/modle.pt "
         "(did you mean 'model.pt'?)"),
        ("report t8", "there is no run runs/t8 (did you mean 't80'?)"),
        ("train --resume t8", "there is no run runs/t8 (did you mean 't80'?)"),
        ("eval t80 --output-dir none", "there is no run none/t80"),
        ("eval images", "images is a folder without model.pt: name a run, or a checkpoint"),
        ("eval cifar-10-batches-py", "cifar-10-batches-py holds CIFAR-10's images: name a run, and "
         "--data-dir . beside it"),
        ("eval t80 --data-dir .", "cifar-10-batches-py holds the files of CIFAR-10's archive, not "
         "class folders: use --dataset cifar10 --data-dir ."),
        ("train --data-dir cifar-10-batches-py", "cifar-10-batches-py is the archive's own "
         "folder: --data-dir . is right"),
        ("report images", "images is not a run directory: it lacks settings.toml or metrics.csv"),
    ],
)  # fmt: skip
def test_what_is_neither_a_path_nor_a_run_is_one_line(quick_cli, root, line, said):
    (root / "cifar-10-batches-py").mkdir()
    (root / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"")
    done = quick_cli(*line.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.replace("\\", "/") == f"cifar-cnn: {said}\n"


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (["last.pt", "previous.pt"], "run runs/t80 is not finished and has no model.pt: go on with "
         "cifar-cnn train --resume runs/t80, or name runs/t80/last.pt"),
        ([], "run runs/t80 was stopped before it saved anything: train it again, with --exist-ok"),
    ],
)  # fmt: skip
def test_an_unfinished_run_says_so_and_what_to_do(quick_cli, root, kept, said):
    for file in (root / "runs" / "t80").glob("*.pt"):
        if file.name not in kept:
            file.unlink()
    done = quick_cli("eval", "t80")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.replace("\\", "/") == f"cifar-cnn: {said}\n"


def test_a_run_that_goes_on_says_so(quick_cli, root):
    from cifar_cnn.storage.files import file_lock

    (root / "runs" / "t80" / "model.pt").unlink()
    with file_lock(root / "runs" / "t80" / ".lock").acquire(timeout=1):
        done = quick_cli("eval", "t80")
    assert done.returncode == 1
    assert "run runs/t80 goes on and has no model.pt yet: wait for its end" in (
        done.stderr.replace("\\", "/")
    )


NAMES = [":cat:", "[red]x", "_first", "two words", "$a$"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is(quick_cli, root, name):
    shutil.copytree(root / "runs" / "t80", root / "runs" / name)
    compare = ["runs", "compare", name, "t80"]
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
