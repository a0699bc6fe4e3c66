import html
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from cifar_cnn import train, write_report
from cifar_cnn.errors import RunError
from cifar_cnn.training.run_files import PICTURES

NASTY = os.name != "nt"  # Windows has no such file names
CLASS = '<img src=x onerror=alert(1)> & "$x_" 名 a very long name' if NASTY else "red & $x_"
RUN = "<b>my & run<i>" if NASTY else "my & run"


@pytest.fixture(scope="module")
def images(tmp_path_factory, make_image_folder):
    root = make_image_folder(tmp_path_factory.mktemp("data") / "images")
    for split in ("train", "test"):
        (root / split / "red").rename(root / split / CLASS)
    return root


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A finished run of two epochs, with its report; nothing in a test may change it."""
    from cifar_cnn.settings import resolve_settings

    values = {"dataset": "folder", "data_dir": images, "epochs": 2, "lr": 1e-6}
    directory = tmp_path_factory.mktemp("runs") / RUN
    return train(resolve_settings(values | {"precision": "fp32"}), directory).run


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_the_report_opens_in_chromium_without_errors_or_overflow(run, page):
    for width in (1280, 390):
        layout = page.show(run / "report.html", width)
        assert layout["width"] == width
        assert layout["content"] <= width
        assert layout["images"] == len(PICTURES) + 1  # no comparison; two have two panels
        assert layout["broken"] == 0
        assert layout["title"] == f"{RUN} · cifar-cnn"
        shot = Image.open(io.BytesIO(page.screenshot()))
        assert width - 20 <= shot.width <= width  # a scroll bar may take its part
        assert len(shot.convert("L").getcolors()) > 100
    assert page.of("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []
    assert page.of("Page.javascriptDialogOpening") == []
    requests = page.of("Network.requestWillBeSent")
    assert {each["request"]["url"].partition(":")[0] for each in requests} <= {"file", "data"}


HOLES = """JSON.stringify([...document.querySelectorAll(
    '.cards, .row:not(.alone .row)')].flatMap(box => {
    const edges = box.getBoundingClientRect();
    const rows = Object.groupBy([...box.children], each => each.getBoundingClientRect().top);
    return Object.values(rows).flatMap(row => {
        const sides = row.map(each => each.getBoundingClientRect());
        const pictures = row.map(each => (each.querySelector('img') || each).offsetHeight);
        return [
            sides[0].left - edges.left,
            edges.right - sides.at(-1).right,
            ...sides.slice(1).map((each, i) => each.left - sides[i].right),
            Math.max(...pictures) - Math.min(...pictures),
        ];
    });
}))"""
OFF_SCREEN = """JSON.stringify([...document.body.querySelectorAll('*')].filter(
    each => each.getBoundingClientRect().right > innerWidth).map(each => each.outerHTML))"""
LONG_LAYER_NAMES = """document.querySelectorAll(
    'td:not([class]):first-child, .budget td:last-child').forEach(
    each => each.innerText = 'stage'.repeat(30)) || 'true'"""
BROKEN = """JSON.stringify([...document.querySelectorAll(
    'th, .whole, .right, .budget td:not(:last-child)')].filter(each => {
    const range = document.createRange();
    range.selectNodeContents(each);
    return range.getClientRects().length > 1;
}).map(each => each.innerText))"""


def test_cards_and_pictures_leave_no_holes(run, page):
    page.show(run / "report.html", 1280)
    holes = measured(page, HOLES)
    assert len(holes) > 20
    assert max(holes) <= 17  # the gap between two, a rem, and a pixel of rounding


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_off_the_screen_and_no_requirement_or_number_is_broken(run, page, width):
    page.show(run / "report.html", width)
    assert measured(page, LONG_LAYER_NAMES)
    assert measured(page, OFF_SCREEN) == []
    assert measured(page, BROKEN) == []
    assert "require:depthwise-separable" in measured(
        page, "JSON.stringify(document.body.innerText)"
    )


def measured(page, expression):
    return json.loads(page.call("Runtime.evaluate", expression=expression)["result"]["value"])


def test_mistakes_are_beside_their_grad_cam_and_named_by_their_files(run, images):
    page = html.unescape((run / "report.html").read_text(encoding="utf-8"))
    assert "what speaks for the predicted class: Grad-CAM on the 4×4 map of convblock4.3" in page
    files = page.partition("Files of these mistakes")[2].partition("</table>")[0]
    names = [each.relative_to(images).as_posix() for each in (images / "test").rglob("*.png")]
    named = [each for each in names if each in files]
    wrong = files.count("<tr>") - 1
    assert len(named) == wrong > 0
    with Image.open(run / "mistakes.png") as plain, Image.open(run / "grad-cam.png") as heated:
        assert plain.size == heated.size
        assert plain.tobytes() != heated.tobytes()


def test_the_page_is_one_file_of_a_few_hundred_kilobytes_without_scripts(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert len(page) < 1_000_000
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert html.escape(RUN) in page


def test_it_says_what_the_run_is_and_where_it_ran(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    for said in (
        "finished after 2 of 2 epochs",
        "12 images",
        "197,019",  # parameters with three classes
        "49 × 49",
        "met</span>",
        "require:dilated",
        "convblock2.0.depthwise",
        "label_smoothing",
        "processor",
        sys.version.split()[0],
    ):
        assert said in page, said


def test_every_picture_is_a_light_png_of_its_own(run):
    for name in PICTURES:
        if name == "comparison.png":
            assert not (run / name).exists()
            continue
        picture = Image.open(run / name).convert("L")
        assert picture.getpixel((0, 0)) == 255, name
        assert picture.width >= 400, name


def test_a_report_written_again_is_the_same(copy):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    write_report(copy)
    before.pop("report.html")  # names the directory
    assert {name: (copy / name).read_bytes() for name in before} == before


def test_runs_and_the_reference_are_compared(run, copy):
    written = write_report(copy, compare=[run], reference=True)
    assert "comparison.png" in [each.name for each in written.pictures]
    page = written.report.read_text(encoding="utf-8")
    assert f"evaluation by epoch of copy, {html.escape(RUN)}, reference log" in page


def test_an_interrupted_run_is_reported_from_its_last_checkpoint(copy):
    (copy / "model.pt").unlink()
    written = write_report(copy)
    assert "interrupted after 2 of 2 epochs" in written.report.read_text(encoding="utf-8")
    assert "confusion.png" in [each.name for each in written.pictures]


def test_what_cannot_be_had_is_left_out_and_said(copy, tmp_path):
    written = write_report(copy, overrides={"data_dir": tmp_path / "gone"})
    assert {each.name for each in written.pictures} == {"curves.png", "receptive-field.png"}
    assert written.notes[0].startswith(f"folder {tmp_path / 'gone'} does not exist")
    for name in ("model.pt", "last.pt"):
        (copy / name).unlink()
    (copy / "environment.json").write_text('{"parameters": 1}')
    assert write_report(copy).notes == ("there is no checkpoint yet",)


def test_without_its_images_the_network_is_still_that_of_its_classes(copy, tmp_path):
    overrides = {"data_dir": tmp_path / "gone"}
    written = write_report(copy, markdown=tmp_path / "work.md", overrides=overrides)
    for text in (written.report.read_text(encoding="utf-8"), (tmp_path / "work.md").read_text()):
        assert "197,019" in text  # parameters with three classes, in the table and in the budget
        assert "197,922" not in text
        assert "require:dilated" in text


def test_without_its_images_an_own_network_is_shown_with_arguments_and_dropout(
    small_settings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def net(width, dropout, num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Dropout(dropout), nn.Flatten(),\n"
        "        nn.Linear(900 * width, num_classes))\n"
    )
    settings = small_settings(model="net.py", model_arg=["width=2"], dropout=0.1, epochs=1)
    run = train(settings, tmp_path / "run", report=False).run
    overrides = {"model": "net.py", "model_arg": ["width=2"], "data_dir": tmp_path / "gone"}
    page = write_report(run, overrides=overrides).report.read_text(encoding="utf-8")
    assert f"{2 * 27 + 2 + 3 * 1800 + 3:,}" in page


def test_the_code_of_a_users_network_runs_only_when_it_is_named_again(
    small_settings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 3))\n"
    )
    run = train(small_settings(model="net.py:net", epochs=1), tmp_path / "run").run
    assert (run / "filters.png").exists()
    (tmp_path / "net.py").write_text("raise SystemExit('ran')")
    written = write_report(run)
    assert [each.name for each in written.pictures] == ["curves.png"]
    assert "pass that again to let its code run" in written.notes[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("settings.toml", None, "is not a run directory: it lacks settings.toml"),
        ("settings.toml", "epoch = 3", "is not of this version: unknown setting 'epoch'"),
        ("metrics.csv", "epoch,loss\n0,1\n", "is not of this version: metrics.csv differs"),
    ],
)
def test_a_directory_that_is_no_run_of_this_version_is_refused(copy, name, content, message):
    (copy / "report.html").unlink()
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_text(content)
    with pytest.raises(RunError, match=message) as caught:
        write_report(copy)
    assert "\n" not in str(caught.value)
    assert not (copy / "report.html").exists()


def test_a_misspelled_run_is_answered_with_the_one_that_was_meant(copy):
    with pytest.raises(RunError, match="did you mean 'copy'"):
        write_report(copy.parent / "coppy")
