"""A run's page and pictures."""

import html
import io
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from cifar_cnn import train, write_report
from cifar_cnn.errors import NetworkWarning, RunError
from cifar_cnn.training.run_files import PICTURES

HOLES = """[...document.querySelectorAll('.cards, .row:not(.alone .row)')].flatMap(box => {
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
})"""
OFF_SCREEN = """[...document.body.querySelectorAll('*')].filter(
    each => each.getBoundingClientRect().right > innerWidth).map(each => each.outerHTML)"""
LENGTHEN_NAMES = """document.querySelectorAll(
    'td:not([class]):first-child, .budget td:last-child').forEach(
    each => each.innerText = 'stage'.repeat(30)) || true"""
BROKEN_CELLS = """[...document.querySelectorAll(
    'th, .whole, .right, .budget td:not(:last-child)')].filter(each => {
    const range = document.createRange();
    range.selectNodeContents(each);
    return range.getClientRects().length > 1;
}).map(each => each.innerText)"""
BROKEN_IMAGES = "[...document.images].filter(image => !image.naturalWidth).length"


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_screen_without_errors_holes_or_broken_numbers(run, page, width):
    page.show(run / "report.html", width)
    assert page.evaluate("[innerWidth, document.title]") == [width, f"{run.name} · cifar-cnn"]
    assert page.evaluate("document.images.length") == len(PICTURES) + 1  # no comparison, 2 of 2
    assert page.evaluate(BROKEN_IMAGES) == 0
    shot = Image.open(io.BytesIO(page.screenshot()))
    assert width - 20 <= shot.width <= width  # a scroll bar may take its part
    assert len(shot.convert("L").getcolors()) > 100
    if width == 1280:
        holes = page.evaluate(HOLES)
        assert len(holes) > 20
        assert max(holes) <= 17  # the gap between two, a rem, and a pixel of rounding
    assert "require:depthwise-separable" in page.evaluate("document.body.innerText")
    assert page.evaluate(LENGTHEN_NAMES)
    assert page.evaluate(OFF_SCREEN) == []
    assert page.evaluate(BROKEN_CELLS) == []
    assert page.of("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []
    assert page.of("Page.javascriptDialogOpening") == []
    requests = page.of("Network.requestWillBeSent")
    assert {each["request"]["url"].partition(":")[0] for each in requests} <= {"file", "data"}


def test_mistakes_are_beside_their_grad_cam_and_named_by_their_files(run, images):
    page = html.unescape((run / "report.html").read_text(encoding="utf-8"))
    assert "what speaks for the predicted class: Grad-CAM on the 4×4 map of convblock4.3" in page
    files = page.partition("Files of these mistakes")[2].partition("</table>")[0]
    names = [each.relative_to(images).as_posix() for each in (images / "test").rglob("*.png")]
    wrong = files.count("<tr>") - 1
    assert sum(name in files for name in names) == wrong > 0
    with Image.open(run / "mistakes.png") as plain, Image.open(run / "grad-cam.png") as heated:
        assert plain.size == heated.size
        assert plain.tobytes() != heated.tobytes()


def test_the_page_is_one_light_file_that_says_what_the_run_is_and_where_it_ran(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert len(page) < 1_000_000
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    for part in (
        html.escape(run.name),
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
        assert part in page, part


def test_a_report_written_again_is_the_same_and_its_pictures_are_light_pngs(copy):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    written = write_report(copy)
    assert written.notes == ()
    assert {each.name for each in written.pictures} == {*PICTURES} - {"comparison.png"}
    before.pop("report.html")  # names the directory
    assert {name: (copy / name).read_bytes() for name in before} == before
    for path in written.pictures:
        picture = Image.open(path).convert("L")
        assert picture.getpixel((0, 0)) == 255, path
        assert picture.width >= 400, path


def test_an_interrupted_run_is_compared_and_reported_from_its_last_checkpoint(run, copy):
    (copy / "model.pt").unlink()
    written = write_report(copy, compare=[run], reference=True)
    assert {"comparison.png", "confusion.png"} <= {each.name for each in written.pictures}
    page = written.report.read_text(encoding="utf-8")
    assert "interrupted after 2 of 2 epochs" in page
    assert f"evaluation by epoch of copy, {html.escape(run.name)}, reference log" in page


def test_what_is_missing_is_left_out_with_a_note(copy, tmp_path):
    """Without its images, the network is still that of its three classes."""
    overrides = {"data_dir": tmp_path / "gone"}
    written = write_report(copy, markdown=tmp_path / "work.md", overrides=overrides)
    assert {each.name for each in written.pictures} == {"curves.png", "receptive-field.png"}
    assert written.notes[0].startswith(f"folder {tmp_path / 'gone'} does not exist")
    for text in (written.report.read_text(encoding="utf-8"), (tmp_path / "work.md").read_text()):
        assert "197,019" in text  # parameters, in the table and in the budget
        assert "197,922" not in text
        assert "require:dilated" in text
    for name in ("model.pt", "last.pt"):
        (copy / name).unlink()
    (copy / "environment.json").write_text('{"parameters": 1}')
    assert write_report(copy).notes == ("there is no checkpoint yet",)


def test_an_own_network_is_reported_with_its_arguments_and_runs_only_when_named(
    small_settings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "from torch import nn\n"
        "def net(width, dropout, num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Dropout(dropout),\n"
        "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))\n"
    )
    settings = small_settings(model="net.py", model_arg=["width=8"], dropout=0.1, epochs=1, lr=1e-6)
    run = train(settings, tmp_path / "run").run
    assert (run / "filters.png").exists()
    with pytest.warns(NetworkWarning, match="^arguments from the checkpoint: width=8$"):
        write_report(run, markdown="work.md", overrides={"model": "net.py"})
    text = Path("work.md").read_text(encoding="utf-8")
    for part in ("| model_arg | width=8 |", "## Budget: broken", "Grad-CAM on the 30×30 map of "):
        assert part in text
    gone = {"model": "net.py", "model_arg": ["width=8"], "data_dir": tmp_path / "gone"}
    page = write_report(run, overrides=gone).report.read_text(encoding="utf-8")
    assert f"<b>{8 * 27 + 8 + 3 * 8 + 3}</b>" in page  # parameters
    Path("net.py").write_text("raise SystemExit('ran')")
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
    with pytest.raises(RunError, match="did you mean 'copy'"):
        write_report(copy.parent / "coppy")
    (copy / "report.html").unlink()
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_text(content)
    with pytest.raises(RunError, match=message) as caught:
        write_report(copy)
    assert "\n" not in str(caught.value)
    assert not (copy / "report.html").exists()
