import itertools
import json
import os
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from cifar_cnn import train, write_report
from cifar_cnn.errors import NetworkWarning, UserError
from cifar_cnn.settings import resolve_settings

POSIX = os.name != "nt"  # Windows has no such file names
CLASS = "<b>red<i> | `$x$` *and* _more_ # & [a](b) 名" if POSIX else "red $x$ _more_"
RUN = "my | run_1 #1" if POSIX else "my run_1 #1"


@pytest.fixture(scope="module")
def images(tmp_path_factory, make_image_folder):
    root = make_image_folder(tmp_path_factory.mktemp("data") / "images")
    for split in ("train", "test"):
        (root / split / "red").rename(root / split / CLASS)
    return root


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    values = {"dataset": "folder", "data_dir": images, "epochs": 1, "lr": 1e-6, "seed": 7}
    directory = tmp_path_factory.mktemp("runs") / RUN
    settings = resolve_settings(values | {"precision": "fp32"})
    return train(settings, directory, report=False).run


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    file = tmp_path_factory.mktemp("to hand in") / "my work.md"
    return write_report(run, markdown=file).markdown


def parsed(file):
    """The headings, the rows of all tables, and the images of a file, as GitHub reads them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(file.read_text(encoding="utf-8"))
    headings, rows, images = [], [], []
    for before, token in itertools.pairwise(tokens):
        if before.type == "heading_open":
            headings.append(shown(token))
        elif before.type == "tr_open":
            rows.append([])
        elif before.type in {"td_open", "th_open"}:
            rows[-1].append(shown(token))
        images += [each.attrs["src"] for each in token.children or () if each.type == "image"]
    return headings, rows, images


def shown(token):
    kinds = {each.type for each in token.children}
    assert kinds <= {"text", "text_special"}, kinds  # no emphasis, code, link or tag
    return "".join(each.content for each in token.children)


def test_images_are_named_below_the_data_folder(written, images):
    _, rows, _ = parsed(written)
    files = [row[0] for row in rows if row[0].endswith(".png")]
    assert files
    assert all((images / file).is_file() and file.startswith("test/") for file in files)
    assert str(images) not in written.read_text(encoding="utf-8")


def test_it_holds_what_is_handed_in(written):
    headings, rows, _ = parsed(written)
    assert headings == [
        RUN,
        "Result",
        "Budget: met",
        "Parameters",
        "Receptive field",
        "Learning curves",
        "Confusion",
        "Calibration",
        "Misclassified images",
        "Grad-CAM",
        "Training images and first filters",
    ]
    result = dict(row for row in rows if len(row) == 2)
    assert result["test accuracy"].endswith("/12)")
    assert (result["dataset"], result["epochs"], result["seed"]) == ("folder", "1", "7")
    assert ["✓", "require:depthwise-separable", "1", "1"] in [row[:4] for row in rows]
    assert ["total", "", "", "197,019"] in [row[:4] for row in rows]
    (last_map,) = (row for row in rows if row[0] == "convblock4.3" and len(row) == 9)
    assert last_map[6:8] == ["25", "8"]


def test_accuracy_is_named_by_its_split(run, images, tmp_path):
    shutil.copytree(images / "train", tmp_path / "images" / "train")
    shutil.copytree(images / "test", tmp_path / "images" / "val")
    overrides = {"data_dir": tmp_path / "images"}
    written = write_report(run, markdown=tmp_path / "work.md", overrides=overrides).markdown
    result = dict(row for row in parsed(written)[1] if len(row) == 2)
    assert result["validation accuracy"].endswith("/12)")
    assert result["test accuracy"].endswith("by the run's log")


def test_an_own_network_is_handed_in_with_its_arguments(small_settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("student.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, width, num_classes):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, width, 3)\n"
        "        self.classify = nn.Linear(width, num_classes)\n"
        "    def forward(self, x):\n"
        "        return self.classify(self.conv(x).relu().mean((2, 3)))\n"
    )
    settings = small_settings(model="student.py", model_arg=["width=8"], epochs=1, lr=1e-6)
    run = train(settings, tmp_path / "run", report=False).run
    with pytest.warns(NetworkWarning, match="^arguments from the checkpoint: width=8$"):
        written = write_report(run, markdown="work.md", overrides={"model": "student.py"})
    headings, rows, _ = parsed(written.markdown)
    assert ["model_arg", "width=8"] in rows
    assert {"Budget: broken", "Parameters", "Grad-CAM"} <= {*headings}
    assert "Grad-CAM on the 30×30 map of relu" in Path("work.md").read_text(encoding="utf-8")


def test_names_are_shown_as_they_are(written, images):
    _, rows, _ = parsed(written)
    start = rows.index(["file", "true", "predicted", "probability"])
    mistakes = [row for row in rows[start + 1 :] if len(row) == 4]
    assert mistakes
    for file, true, predicted, _ in mistakes:
        assert (images / file).is_file()
        assert {true, predicted} <= {"blue", "green", CLASS}
    assert CLASS in {name for row in mistakes for name in row}


def test_its_pictures_lie_beside_it(written):
    _, _, images = parsed(written)
    found = {written.parent / unquote(each) for each in images}
    assert len(found) == 9
    assert found == {*(written.parent / "my work_files").iterdir()}
    assert written.parent / "my work_files" / "grad-cam.png" in found


def test_the_command_replaces_what_it_wrote_only_with_exist_ok(cli, run, tmp_path):
    command = ("report", run, "--markdown", "work.md", "--json")
    for flags in ([], ["--exist-ok"]):
        done = cli(*command, *flags)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["markdown"] == "work.md"
    (tmp_path / "work.md").write_text("My own words.")
    done = cli(*command)
    assert done.returncode == 1
    assert "work.md exists: give another name, or --exist-ok to replace it" in done.stderr
    assert (tmp_path / "work.md").read_text() == "My own words."
    assert {each.name for each in tmp_path.iterdir()} == {"work.md", "work_files"}
    assert cli("report", run, "--exist-ok").returncode == 2


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("work.txt", 2, "^markdown writes Markdown: work.txt has to end in .md"),
        ("", 2, "has to end in .md"),
        ("none/work.md", 1, "none/work.md cannot be written: there is no folder none"),
        ("folder.md", 1, "folder.md cannot be written: it is a folder"),
        ("own.md", 1, "own.md exists: give another name"),
        ("empty.md", 1, "empty.md exists: give another name"),
        ("mine.md", 1, "mine_files, the folder for the pictures of mine.md, exists"),
        ("taken.md", 1, "taken_files, the folder for the pictures of taken.md, exists"),
    ],
)
def test_what_is_the_users_own_is_left_alone(run, tmp_path, monkeypatch, name, status, message):
    monkeypatch.chdir(tmp_path)
    Path("own.md").write_text("# My notes\n")
    Path("empty.md").touch()
    Path("taken_files").touch()
    for folder in ("folder.md", "mine_files"):
        Path(folder).mkdir()
    Path("mine_files/curves.png").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message.replace(".", r"\.")) as caught:
        write_report(run, markdown=name)
    assert caught.value.exit_status == status
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert Path("own.md").read_text() == "# My notes\n"
    assert Path("mine_files/curves.png").read_text() == "mine"
