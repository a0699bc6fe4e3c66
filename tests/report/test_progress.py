"""What a person sees while images are decoded, an archive is downloaded, or a run goes on."""

import io
import os
import re
import select
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import cifar_cnn
from cifar_cnn.report.progress import Display, RunDisplay
from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.history import EpochEnded, EpochRow, RunStarted, StepEnded

ESCAPES = r"\x1b\[[0-9;?]*[A-Za-z]"
DECODING = ("decoding", Path("data/train"))
DOWNLOADING = ("downloading", Path("data/archive.tar.gz"))
LINES = {
    DECODING: "decoding 60,000 images in data/train\n",
    DOWNLOADING: "downloading 60 kB to data/archive.tar.gz\n",
    ("step", None): "",
    ("networks", None): "",
}


def make_console(*, terminal=False, width=80, **more):
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, **more)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves its time, a list of one number."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def print_half(console, work, *, total=60_000):
    """Return what is printed of half of the work, and after that of the end of its live part."""
    with Display(console) as display:
        for done in (0, total // 2):
            display(*work, done, total)
            if display.live:
                display.live.refresh()
        half = console.file.getvalue()
    return half, console.file.getvalue()[len(half) :]


@pytest.mark.parametrize("work", LINES)
def test_elsewhere_than_on_a_terminal_work_on_files_is_one_line(work):
    assert print_half(make_console(), work) == (LINES[work].replace("/", os.sep), "")
    assert print_half(make_console(terminal=True, quiet=True), work) == ("", "")  # for JSON


@pytest.mark.parametrize("width", [30, 40, 80])
@pytest.mark.parametrize(
    ("work", "line"),
    [
        (DECODING, "decoding 30,000 of 60,000, 0:00:00 left"),
        (DOWNLOADING, "loading 0.0 of 0.1 MB, 0:00:00 left"),
        (("proving", None), "proving 30,000 of 60,000, 0:00:00 left"),
    ],
)
def test_a_terminal_shows_how_much_is_done_and_the_time_left_and_is_left_clean(
    work, line, width, clock
):
    """It is no wider than a narrow window: one made narrower would keep the ends of its lines."""
    half, end = print_half(make_console(terminal=True, width=width), work)
    lines = re.split(r"[\r\n]+", re.sub(ESCAPES, "", half))
    live = [each for each in lines if not each.startswith("downloading")]
    assert any(line[: width - 1] in each for each in live)
    assert max(map(len, live)) <= min(39, width)
    assert "\x1b[?25h" in end  # the cursor is there again, also where an error ends it


def test_one_display_shows_several_works_one_first_told_of_with_a_unit_done(clock):
    console = make_console(terminal=True)
    with Display(console) as display:
        for folder in ("data/train", "data/val"):
            for done in (0, 60_000):
                display("decoding", Path(folder), done, 60_000)
            assert display.live is None
        display("step", None, 1, 300)
        display.live.refresh()
    assert "step 1 of 300, 0:00:00 left" in console.file.getvalue()


def test_a_few_small_images_are_not_shown_and_a_few_large_ones_are(clock):
    console = make_console()
    display = Display(console)
    for seconds, folder in ((0, "small"), (5, "large")):
        for done in (0, 20, 36):
            display("decoding", Path(folder), done, 36)
            clock[0] += seconds
    assert console.file.getvalue() == "decoding 36 images in large\n"


def test_training_evaluation_and_report_tell_what_they_decode(
    small_settings, image_folder, tmp_path, monkeypatch
):
    calls = []

    def progress(work, folder, done, total):
        assert work == "decoding"
        if done == total:
            calls.append((folder.name, total))

    settings = small_settings(epochs=1)
    run = cifar_cnn.train(settings, tmp_path / "run", report=False, progress=progress).run
    monkeypatch.setenv("CIFAR_CNN_CACHE", str(tmp_path / "empty"))
    cifar_cnn.evaluate(run / "model.pt", progress=progress)
    monkeypatch.setenv("CIFAR_CNN_CACHE", str(tmp_path / "empty too"))
    cifar_cnn.write_report(run, progress=progress)
    assert calls == [("train", 36), *[("test", 12)] * 3, ("train", 36)]


def row(epoch, accuracy, split="test"):
    other = {"lr": 0.1, "train_loss": 1.0, "train_accuracy": 0.5, "eval_split": split}
    other |= {"eval_loss": 1.0, "seconds": 1.0, "images_per_second": 10.0}
    return EpochRow(epoch=epoch, step=10 * (epoch + 1), eval_accuracy=accuracy, **other)


def started(folder="a", epochs=4, steps=10, **more):
    settings = resolve_settings({"epochs": epochs})
    notes = {"history": (), "notes": ()}
    return RunStarted(Path(folder), settings, "cpu", steps, 197922, **notes | more)


def live_lines(display):
    """Return the lines of the live part."""
    live = display.live.get_renderable()
    display.close()
    lines = display.console.render_lines(live)
    return ["".join(part.text for part in line).rstrip() for line in lines]


@pytest.mark.parametrize("columns", [40, 80])
def test_the_live_part_says_where_the_run_is_its_best_and_the_time_left(columns):
    display = RunDisplay(make_console(terminal=True, width=columns))
    display.listen(started())
    history = (row(0, 0.6), row(1, 0.55))
    for count in (1, 2):
        display.listen(EpochEnded(Path("a"), history[:count]))
    display.listen(StepEnded(2, 4, 0.5, 0.75, 0.1, 1234.5))
    text = " ".join(" ".join(live_lines(display)).split())
    assert "epoch 2 loss 0.5000 accuracy 75.00% step 5 of 10 lr 0.1 1234 images/s" in text
    assert "left of the run, best test 60.00% (epoch 0)" in text
    assert "━" in text


@pytest.mark.parametrize(
    ("width", "headings", "values"),
    [
        (
            80,
            "epoch train_loss train_% val_loss val_% lr images/s seconds",
            "0 1.0000 50.00 1.0000 60.00 0.1 10 1.0",
        ),
        (40, "epoch train_% val_loss val_%", "0 50.00 1.0000 60.00"),
    ],
)
def test_the_table_has_the_columns_that_fit_under_the_name_of_the_split(width, headings, values):
    console = make_console(terminal=True, width=width)
    with RunDisplay(console) as display:
        display.listen(started(eval_split="val", history=(row(0, 0.6, "val"),)))
    lines = re.sub(ESCAPES, "", console.file.getvalue()).splitlines()
    (heading,) = (line for line in lines if line.startswith("epoch"))
    (line,) = (line for line in lines if line.startswith("    0"))
    assert heading.split() == headings.replace("_", " ").split()
    assert line.split() == values.split()
    assert len(heading) == len(line) <= width


def test_the_time_left_of_a_resumed_run_counts_the_steps_still_to_run(clock):
    """Four of ten steps were done before; the fifth took 5 seconds, so five more take 25."""
    display = RunDisplay(make_console(terminal=True))
    display.listen(started(epochs=1, step=4))
    clock[0] += 5
    display.listen(StepEnded(0, 4, 0.5, 0.75, 0.1, 1234.5))
    assert "0:00:25 left of the run" in live_lines(display)


@pytest.mark.parametrize(
    ("done", "step", "line"),
    [
        (0, 4, "goes on from epoch 0, step 5 of 10"),
        (2, 20, "goes on from epoch 2, step 1 of 10"),
        (2, 29, "goes on from epoch 2, step 10 of 10"),
        (2, 30, "goes on from epoch 2, step 10 of 10"),  # only its evaluation was not done
    ],
)
def test_a_resumed_run_says_from_which_epoch_and_step_it_goes_on(done, step, line):
    console = make_console()
    history = tuple(row(epoch, 0.5) for epoch in range(done))
    RunDisplay(console).listen(started(history=history, step=step))
    assert console.file.getvalue().splitlines()[1] == line


@pytest.mark.parametrize("columns", [30, 40, 80])
def test_the_live_part_is_never_wider_than_39_columns_or_the_screen(columns):
    """So a window that is made narrower breaks none of its lines, which would leave their ends."""
    display = RunDisplay(make_console(terminal=True, width=columns))
    display.listen(started(epochs=20_000, steps=100_000))
    display.listen(EpochEnded(Path("a"), (row(10_000, 1.0),)))
    display.listen(StepEnded(10_001, 99_999, 1234.5678, 1.0, 1.234e-05, 123456.7))
    lines = live_lines(display)
    assert len(lines) == 5
    assert max(map(len, lines)) <= min(39, columns)


A_RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_progress import row, resolve_settings
from cifar_cnn.report.console import people_console
from cifar_cnn.report.progress import RunDisplay
from cifar_cnn.training.history import EpochEnded, RunEnded, RunStarted, StepEnded
progress = RunDisplay(people_console()).listen
folder = Path("runs/a-name")
progress(RunStarted(folder, resolve_settings({"epochs": 3}), "cpu", 70, 197922, (), ()))
rows = ()
for epoch in range(3):
    for step in range(70):
        progress(StepEnded(epoch, step, 0.5, 0.75, 0.01, 1234.5))
        time.sleep(0.02)
    rows = (*rows, row(epoch, 0.5 + epoch / 100))
    progress(EpochEnded(folder, rows))
progress(RunEnded(folder, True, rows))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_window_made_narrower_while_a_run_goes_on_keeps_no_old_lines():
    import fcntl
    import pty
    import termios

    pyte = pytest.importorskip("pyte", reason="needs pyte, of the extra `test`")
    master, slave = pty.openpty()

    def resize(columns, lines=()):
        """Break the lines that are wider than the window anew, as most terminals do."""
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        screen = pyte.Screen(columns, 50)
        pyte.Stream(screen).feed("\r\n".join(lines))
        return screen

    screen, widths = resize(100), [80, 60, 50, 40]
    environment = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
    command = [sys.executable, "-c", A_RUN, str(Path(__file__).parent)]
    most = reads = 0
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment | {"TERM": "xterm"}
    ) as process:
        while process.poll() is None or select.select([master], [], [], 0)[0]:
            if not select.select([master], [], [], 0.1)[0]:
                continue
            pyte.ByteStream(screen).feed(os.read(master, 65536))
            live = sum("loss 0.5000" in line for line in screen.display)
            most, reads = max(most, live), reads + live
            if live and widths and reads % 2 == 0:
                written = screen.display[: screen.cursor.y + 1]
                screen = resize(widths.pop(0), [line.rstrip() for line in written])
        assert process.returncode == 0
    os.close(slave)
    os.close(master)
    assert (most, widths) == (1, [])
    lines = [line.rstrip() for line in screen.display if line.strip()]
    assert not [line for line in lines if "left of the run" in line or "\u2501" in line]
    assert [line.split()[0] for line in lines[-2:]] == ["1", "2"]
