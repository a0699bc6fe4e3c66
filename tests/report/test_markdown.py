"""The Markdown that is handed in."""

import itertools
import json
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from cifar_cnn import write_report
from cifar_cnn.cli.main import app
from cifar_cnn.errors import UserError


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    file = tmp_path_factory.mktemp("to hand in") / "my work.md"
    return write_report(run, markdown=file).markdown


def parse(file):
    """Return the headings, the rows of all tables, and the images of a file, as GitHub does."""
    tokens = MarkdownIt("commonmark").enable("table").parse(file.read_text(encoding="utf-8"))
    headings, rows, images = [], [], []
    for before, token in itertools.pairwise(tokens):
        if before.type == "heading_open":
            headings.append(plain_text(token))
        elif before.type == "tr_open":
            rows.append([])
        elif before.type in {"td_open", "th_open"}:
            rows[-1].append(plain_text(token))
        images += [each.attrs["src"] for each in token.children or () if each.type == "image"]
    return headings, rows, images


def plain_text(token):
    kinds = {each.type for each in token.children}
    assert kinds <= {"text", "text_special"}, kinds  # no emphasis, code, link or tag
    return "".join(each.content for each in token.children)


def test_it_holds_what_is_handed_in(written, run):
    headings, rows, pictures = parse(written)
    assert headings == [
        run.name,
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
    assert (result["dataset"], result["epochs"], result["seed"]) == ("folder", "2", "7")
    assert ["✓", "require:depthwise-separable", "1", "1"] in [row[:4] for row in rows]
    assert ["total", "", "", "197,019"] in [row[:4] for row in rows]
    (last_map,) = (row for row in rows if row[0] == "convblock4.3" and len(row) == 9)
    assert last_map[6:8] == ["25", "8"]
    folder = written.parent / "my work_files"
    assert {written.parent / unquote(each) for each in pictures} == {*folder.iterdir()}
    assert (len(pictures), (folder / "grad-cam.png").exists()) == (9, True)


def test_mistakes_are_named_by_class_and_by_file_below_the_data_folder(written, images):
    _, rows, _ = parse(written)
    start = rows.index(["file", "true", "predicted", "probability"])
    mistakes = [row for row in rows[start + 1 :] if len(row) == 4]
    classes = {each.name for each in (images / "test").iterdir()}
    assert mistakes
    for file, true, predicted, _ in mistakes:
        assert file.startswith("test/")
        assert (images / file).is_file()
        assert {true, predicted} <= classes
    odd = {name for name in classes if not name.isalpha()}
    assert odd <= {name for row in mistakes for name in row}
    assert str(images) not in written.read_text(encoding="utf-8")


def test_accuracy_is_named_by_its_split(run, images, tmp_path):
    shutil.copytree(images / "train", tmp_path / "images" / "train")
    shutil.copytree(images / "test", tmp_path / "images" / "val")
    overrides = {"data_dir": tmp_path / "images"}
    written = write_report(run, markdown=tmp_path / "work.md", overrides=overrides).markdown
    result = dict(row for row in parse(written)[1] if len(row) == 2)
    assert result["validation accuracy"].endswith("/12)")
    assert result["test accuracy"].endswith("by the run's log")


def test_the_command_replaces_what_it_wrote_only_with_exist_ok(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def report(*flags):
        done = CliRunner().invoke(app, ["report", str(run), *flags, "--json"])
        return done.exit_code, json.loads(done.stdout)

    written = report("--markdown", "work.md")
    assert (written[0], written[1]["markdown"]) == (0, "work.md")
    Path("work.md").write_text("My own words.")
    status, document = report("--markdown", "work.md")
    assert (status, Path("work.md").read_text()) == (1, "My own words.")
    assert "work.md exists: give another name, or --exist-ok to replace it" in document["error"]
    assert report("--markdown", "work.md", "--exist-ok") == written
    assert Path("work.md").read_text() != "My own words."
    assert {each.name for each in tmp_path.iterdir()} == {"work.md", "work_files"}
    assert report("--exist-ok")[0] == 2


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
