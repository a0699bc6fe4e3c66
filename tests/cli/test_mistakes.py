"""Each mistake of the user is one line with its exit code, and nothing is written."""

import json
import os
import shutil

import pytest
import torch

from cifar_cnn.errors import system_line
from cifar_cnn.models import build_model

NETWORKS = """
import torch
from torch import nn
class Needy(nn.Module):
    def __init__(self, width):
        super().__init__()
class Sorting(nn.Module):
    def forward(self, x):
        return torch.cummax(x, 2)[0]
"""


@pytest.fixture(scope="module")
def place(_folder_of_examples, tmp_path_factory):
    """A folder of runs, images and networks, with things that are wrong among them."""
    folder = tmp_path_factory.mktemp("mistakes") / "place"
    shutil.copytree(_folder_of_examples, folder)
    (folder / "net.py").write_text(NETWORKS)
    torch.save(build_model("compact", num_classes=3).state_dict(), folder / "compact.pt")
    archive = folder / "cifar-10-batches-py"
    archive.mkdir()
    (archive / "data_batch_1").write_bytes(b"")
    for name in ("unfinished", "stopped", "broken", "odd"):
        shutil.copytree(folder / "runs" / "first", folder / "runs" / name)
    for file in (folder / "runs").glob("[us]*ed/*.pt"):
        if file.parent.name == "stopped" or file.name not in {"last.pt", "previous.pt"}:
            file.unlink()
    (folder / "runs" / "broken" / "metrics.csv").write_text("epoch,step\n0,\n")
    (folder / "runs" / "odd" / "environment.json").write_text('{"parameters": "many"}')
    return folder


@pytest.fixture
def refuse(quick_cli, place, monkeypatch):
    """Run a command in the folder; check that it is refused in one line, and return that."""
    monkeypatch.chdir(place)

    def run(line, status):
        before = {path: path.stat().st_mtime_ns for path in place.rglob("*.*")}
        done = quick_cli(*line.split())
        assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
        assert {path: path.stat().st_mtime_ns for path in place.rglob("*.*")} == before
        message = done.stderr.removeprefix("cifar-cnn: ").removesuffix("\n").replace("\\", "/")
        expected = {"error": message, "exit_status": status}
        assert "--json" not in line or json.loads(done.stdout) == expected
        assert "--json" in line or done.stdout == ""
        return message

    return run


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("sumarize", 2, "No such command 'sumarize'. Did you mean 'summarize'? "
         "see cifar-cnn --help"),
        ("evall x.pt --json", 2, "No such command 'evall'. Did you mean 'eval'? see cifar-cnn "
         "--help"),
        ("validate x.pt", 2, "No such command 'validate'; see cifar-cnn --help"),
        ("train --split x", 2, "No such option: --split; see cifar-cnn train --help"),
        ("runs compare", 2, "Missing argument 'RUN...'; see cifar-cnn runs compare --help"),
        ("runs compare a --plt x", 2, "No such option: --plt. Did you mean --plot? see cifar-cnn "
         "runs compare --help"),
        ("eval --modle x --json", 2, "No such option: --modle. Did you mean --model? see cifar-cnn "
         "evaluate --help"),
        ("receptive-field --target nose", 2, "Invalid value for '--target': 'nose' is not one of "
         "'features', 'logits'; see cifar-cnn receptive-field --help"),
        ("summary --max-params x", 2, "Invalid value for '--max-params': it has to be a whole "
         "number; see cifar-cnn summarize --help"),
        ("train x", 2, "Got unexpected extra argument(s) (x); see cifar-cnn train --help"),
        ("models net.py", 2, "Got unexpected extra argument(s) (net.py); see cifar-cnn models "
         "--help"),
        ("predict", 2, "Missing argument 'IMAGE'; see cifar-cnn predict --help"),
        ("summary --model", 2, "Option '--model' requires an argument; see --help"),
        ("summary --model=none= --model-arg text=", 2, "unknown model 'none=': give one of "
         "baseline, compact, or module:attr, or path.py:attr"),
        ("eval x.pt --model a:b --model=c:d", 2, "--model is given twice, and one network is "
         "wanted: give it once"),
        ("report https://a.b/c", 1, "there is no run https://a.b/c"),
        ("eval t8", 1, "there is no run runs/t8"),
        ("eval firs --json", 1, "there is no run runs/firs (did you mean 'first'?)"),
        ("eval runs/first/modle.pt", 1, "there is no file runs/first/modle.pt (did you mean "
         "'model.pt'?)"),
        ("report firs", 1, "there is no run runs/firs (did you mean 'first'?)"),
        ("runs show firs --json", 1, "there is no run runs/firs (did you mean 'first'?)"),
        ("train --resume firs", 1, "there is no run runs/firs (did you mean 'first'?)"),
        ("eval first --output-dir none", 1, "there is no run none/first"),
        ("eval images", 1, "images is a folder without model.pt: name a run, or a checkpoint"),
        ("receptive-field runs", 1, "runs is a folder without model.pt: name a run, or a "
         "checkpoint"),
        ("eval cifar-10-batches-py", 1, "cifar-10-batches-py holds CIFAR-10's images: name a run, "
         "and --data-dir . beside it"),
        ("eval first --data-dir .", 1, "cifar-10-batches-py holds the files of CIFAR-10's archive, "
         "not class folders: use --dataset cifar10 --data-dir ."),
        ("train --data-dir cifar-10-batches-py", 1, "cifar-10-batches-py is the archive's own "
         "folder: --data-dir . is right"),
        ("report images", 1, "images is not a run directory: it lacks settings.toml or "
         "metrics.csv"),
        ("eval unfinished", 1, "run runs/unfinished is not finished and has no model.pt: go on "
         "with cifar-cnn train --resume runs/unfinished, or name runs/unfinished/last.pt"),
        ("eval stopped", 1, "run runs/stopped was stopped before it saved anything: train it "
         "again, with --exist-ok"),
        ("runs compare first", 2, "there is nothing to compare in one run: name two or more"),
        ("runs compare first runs/first", 2, "there is nothing to compare in one run: name two or "
         "more"),
        ("runs compare first broken", 1, "run directory runs/broken is not of this version: "
         "metrics.csv differs"),
        ("runs compare first odd", 1, "run directory runs/odd is not of this version: "
         "environment.json differs"),
        ("runs compare first .", 1, ". is not a run directory: it lacks settings.toml or "
         "metrics.csv"),
    ],
)  # fmt: skip
def test_the_whole_line(refuse, line, status, message):
    assert refuse(line, status) == message


TRAIN = "train --dataset folder --data-dir images --batch-size 12"


@pytest.mark.parametrize(
    ("line", "status", "part"),
    [
        ("eval first --dataset synthetic", 1, "was trained on the classes"),
        ("eval first --model basline --json", 2, "did you mean 'baseline'"),
        ("eval first --normalization cifar10", 2, "leave --normalization out"),
        ("eval compact.pt --normalization imagenet", 2, "normalization"),
        ("export first --format onxx", 2, "did you mean 'onnx'"),
        ("export first --format onnx --output photo.png", 1, "exists: choose another"),
        ("predict photo.png --checkpoint first --normalization cifar10", 2,
         "leave --normalization out"),
        ("report first --exist-ok", 2, "give --markdown FILE.md too"),
        ("runs --sort acuracy", 2, "did you mean 'accuracy'"),
        ("runs --output-dir none", 1, "there is no folder none"),
        ("runs --sort state show first", 2, "--sort orders the list of the runs: leave it out"),
        ("runs compare first second --plot none/x.png", 1,
         "none/x.png cannot be written: there is no folder none"),
        ("summary --model basline --json", 2, "did you mean 'baseline'"),
        ("summary baseline --model-arg width=1", 2, "'baseline' has no argument 'width'"),
        ("summary nets/*.py:net", 2, "no file matches nets/*.py: name files that are there"),
        ("summary baseline compact --csv none/grades.csv", 1,
         "none/grades.csv cannot be written: there is no folder none"),
        ("summary compact.pt --model a.py --model b.py", 2,
         "--model beside a file of weights says which code that may run: give it once"),
        ("summary first --model compact", 1, "belongs to another network"),
        ("receptive-field net.py:Sorting", 2, "net.py:9"),
        ("receptive-field baseline compact --verify", 2, "are for one network: give one"),
        ("receptive-field first --effective --checkpoint second", 2,
         "--checkpoint and runs/first/model.pt are both files of weights: give one"),
        ("receptive-field --plot x.png", 2, "add --effective"),
        ("receptive-field --effective --plot missing/x.png", 1,
         "missing/x.png cannot be written: there is no folder missing"),
        ("receptive-field --effective --checkpoint none.pt", 1, "there is no file none.pt"),
        ("receptive-field --effective --dataset folder", 1, "folder data does not exist"),
        ("receptive-field --effective --dataset folder --data-dir images/train", 1,
         "images/train has class folders alone (blue, green, red): put them below images/train/"),
        ("train --lr -1 --json", 2, "setting lr = -1.0 is invalid"),
        ("train --print-config --json", 2, "--print-config prints TOML: leave --json out"),
        (f"{TRAIN} --device cuad", 2, "or mps (did you mean 'cuda'?)"),
        (f"{TRAIN} --data-dir none", 1, "folder none does not exist"),
        (f"{TRAIN} --output-dir photo.png", 1, "cannot be written"),
        (f"{TRAIN} --model net.py:Needy --model-arg wide=1", 2, "no argument 'wide'"),
        (f"{TRAIN} --find-lr --resume auto --name a", 2, "makes no run: leave --resume out"),
        (f"{TRAIN} --find-lr --dry-run", 2, "--find-lr makes no run: leave --dry-run out"),
        (f"{TRAIN} --find-lr --max-time 0", 2, "--find-lr makes no run: leave --max-time out"),
        (f"{TRAIN} --plot x.png", 2, "--plot is for --find-lr: add it"),
        (f"{TRAIN} --find-lr --plot none/x.png", 1,
         "none/x.png cannot be written: there is no folder none"),
    ],
)  # fmt: skip
def test_a_part_of_the_line(refuse, line, status, part):
    assert part in refuse(line, status)


WRITES = [
    ("summary baseline --csv", "CSV", ".csv"),
    ("summary baseline --junit", "XML", ".xml"),
    ("receptive-field baseline --csv", "CSV", ".csv"),
    ("receptive-field baseline --junit", "XML", ".xml"),
    ("receptive-field --effective --plot", "a PNG picture", ".png"),
    ("runs compare a b --plot", "a PNG picture", ".png"),
    ("train --dataset synthetic --find-lr --plot", "a PNG picture", ".png"),
    ("eval none --predictions", "CSV", ".csv"),
    ("predict none.png --checkpoint none --explain", "a PNG picture", ".png"),
]
"""Flags that write a file, what they write, and the suffix of its name."""


@pytest.mark.parametrize(("line", "kind", "suffix"), WRITES)
def test_a_flag_that_writes_replaces_no_file_of_another_kind_or_of_a_run(
    refuse, line, kind, suffix
):
    flag = line.split()[-1]
    for name in ("net.py", "runs/first/model.pt", "runs"):
        message = f"{flag} writes {kind}: {name} has to end in {suffix}"
        assert refuse(f"{line} {name}", 2) == message
    for own in {".csv": ["metrics.csv"], ".png": ["curves.png"]}.get(suffix, ()):
        message = f"runs/first/{own} is a run's own file: give {flag} another name"
        assert refuse(f"{line} runs/first/{own}", 1) == message


def test_the_suffix_may_be_in_capitals_and_its_file_is_replaced(quick_cli, tmp_path):
    (tmp_path / "GRADES.CSV").write_text("of last year")
    assert quick_cli("summary", "baseline", "--csv", "GRADES.CSV").returncode == 0
    assert (tmp_path / "GRADES.CSV").read_text().startswith("model,")


@pytest.mark.parametrize(
    "line", ["train --resume", "eval", "predict a.png", "runs --output-dir", "summary --csv"]
)
def test_an_empty_word_is_one_line_and_nothing_is_done(quick_cli, tmp_path, line):
    *words, last = line.split()
    message = (
        f"the word after {last} is empty (a variable that is not set?): fill it in, or leave it out"
    )
    if last.startswith("--"):
        assert quick_cli(*words, f"{last}=").stderr == f"cifar-cnn: {message}\n"
    done = quick_cli(*words, last, "", "--json")
    assert json.loads(done.stdout) == {"error": message, "exit_status": 2}
    assert (done.returncode, done.stderr) == (2, f"cifar-cnn: {message}\n")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(os.name == "nt", reason="has another limit, and says it otherwise")
@pytest.mark.parametrize("line", ["report", "eval", "runs --output-dir", "summary"])
def test_what_the_system_refuses_is_one_line_without_its_number(refuse, line):
    message = f"…{59 * 'x'}z cannot be used: File name too long"
    assert refuse(f"{line} {300 * 'x'}z --json", 1) == message


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError("no\nplace"), "no place"),
        (PermissionError(13, "Permission denied", "a/b"), "a/b cannot be used: Permission denied"),
        (OSError(18, "Invalid link", "a", None, "b"), "a cannot be used: Invalid link"),
    ],
)
def test_the_systems_words_stand_with_the_file_that_they_are_about(error, message):
    assert system_line(error) == message


def test_debug_shows_the_traceback_wherever_it_stands(quick_cli):
    for line in ("--debug train --lr -1", "train --lr -1 --debug"):
        with pytest.raises(Exception, match="lr = -1"):
            quick_cli(*line.split())
