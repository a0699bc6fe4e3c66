import io
import os
import select
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cifar_cnn.report.progress import ConsoleProgress
from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.events import EpochEnded, RunStarted, StepEnded
from cifar_cnn.training.history import EpochRow


def row(epoch, correct):
    return EpochRow(
        epoch=epoch,
        step=10 * (epoch + 1),
        lr=0.1,
        train_loss=1.0,
        train_accuracy=0.5,
        last_loss=1.0,
        batches=10,
        eval_split="test",
        eval_loss=1.0,
        eval_correct=correct,
        eval_samples=100,
        seconds=1.0,
        images_per_second=10.0,
    )


@pytest.mark.parametrize("columns", [40, 80])
def test_the_live_part_says_where_the_run_is_its_best_and_the_time_left(tmp_path, columns):
    console = Console(file=io.StringIO(), force_terminal=True, width=columns)
    progress = ConsoleProgress(console)
    settings = resolve_settings({"epochs": 4})
    progress(RunStarted(tmp_path, settings, "cpu", 10, 197922, (), ()))
    history = (row(0, 60), row(1, 55))
    for count in (1, 2):
        progress(EpochEnded(tmp_path, history[:count]))
    progress(StepEnded(2, 4, 0.5, 0.75, 0.1, 1234.5))
    with console.capture() as shown:
        console.print(progress._render())  # noqa: SLF001 - what Live asks for
    progress.close()
    said = " ".join(shown.get().split())
    assert "epoch 2 loss 0.5000 accuracy 75.00% step 5 of 10 lr 0.1 1234 images/s" in said
    assert "left of the run, best test 60.00% (epoch 0)" in said
    assert "━" in said


@pytest.mark.parametrize("split", ["test", "val"])
def test_the_table_is_headed_by_the_split_that_is_evaluated(tmp_path, split):
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    progress = ConsoleProgress(console)
    settings = resolve_settings({"epochs": 1})
    progress(RunStarted(tmp_path, settings, "cpu", 10, 197922, (), (), eval_split=split))
    progress.close()
    assert f"{split} loss" in console.file.getvalue()


def test_the_time_left_of_a_resumed_run_counts_the_steps_still_to_run(tmp_path, monkeypatch):
    """Four of ten steps were done before; the fifth took 5 seconds, so five more take 25."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    progress = ConsoleProgress(console)
    settings = resolve_settings({"epochs": 1})
    progress(RunStarted(tmp_path, settings, "cpu", 10, 197922, (), (), step=4))
    now[0] += 5
    progress(StepEnded(0, 4, 0.5, 0.75, 0.1, 1234.5))
    with console.capture() as shown:
        console.print(progress._render())  # noqa: SLF001 - what Live asks for
    progress.close()
    assert "0:00:25 left of the run" in shown.get()


@pytest.mark.parametrize(
    ("done", "step", "said"),
    [
        (0, 4, "goes on from epoch 0, step 5 of 10"),
        (2, 20, "goes on from epoch 2, step 1 of 10"),
        (2, 29, "goes on from epoch 2, step 10 of 10"),
        (2, 30, "goes on from epoch 2, step 10 of 10"),  # only its evaluation was not done
    ],
)
def test_a_resumed_run_says_from_which_epoch_and_step_it_goes_on(tmp_path, done, step, said):
    shown = io.StringIO()
    progress = ConsoleProgress(Console(file=shown, width=80))
    history = tuple(row(epoch, 50) for epoch in range(done))
    settings = resolve_settings({"epochs": 4})
    progress(RunStarted(tmp_path, settings, "cpu", 10, 197922, history, (), step=step))
    assert shown.getvalue().splitlines()[1] == said


def test_one_epoch_of_one_step_is_said_so(tmp_path):
    shown = io.StringIO()
    progress = ConsoleProgress(Console(file=shown, width=80))
    settings = resolve_settings({"epochs": 1})
    progress(RunStarted(tmp_path / "a", settings, "cpu", 1, 197922, (), ()))
    assert ", 1 epoch of 1 step, cpu auto -> " in shown.getvalue()


@pytest.mark.parametrize("columns", [30, 40, 80])
def test_the_live_part_is_never_wider_than_39_columns_or_the_screen(tmp_path, columns):
    """So a window that is made narrower breaks none of its lines, which would leave their ends."""
    console = Console(file=io.StringIO(), force_terminal=True, width=columns)
    progress = ConsoleProgress(console)
    settings = resolve_settings({"epochs": 20_000})
    progress(RunStarted(tmp_path, settings, "cpu", 100_000, 197922, (), ()))
    progress(EpochEnded(tmp_path, (row(10_000, 100),)))
    progress(StepEnded(10_001, 99_999, 1234.5678, 1.0, 1.234e-05, 123456.7))
    progress.close()
    lines = console.render_lines(progress._render())  # noqa: SLF001 - what Live asks for
    widths = [len("".join(part.text for part in line).rstrip()) for line in lines]
    assert len(widths) == 5
    assert max(widths) <= min(39, columns)


A_RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_progress import row, resolve_settings
from cifar_cnn.report.console import people_console
from cifar_cnn.report.progress import ConsoleProgress
from cifar_cnn.training.events import EpochEnded, RunEnded, RunStarted, StepEnded
progress = ConsoleProgress(people_console())
folder = Path("runs/a-name")
progress(RunStarted(folder, resolve_settings({"epochs": 3}), "cpu", 100, 197922, (), ()))
rows = ()
for epoch in range(3):
    for step in range(100):
        progress(StepEnded(epoch, step, 0.5, 0.75, 0.01, 1234.5))
        time.sleep(0.02)
    rows = (*rows, row(epoch, 50 + epoch))
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
            if live and widths and reads % 3 == 0:
                written = screen.display[: screen.cursor.y + 1]
                screen = resize(widths.pop(0), [line.rstrip() for line in written])
        assert process.returncode == 0
    os.close(slave)
    os.close(master)
    assert (most, widths) == (1, [])
    shown = [line.rstrip() for line in screen.display if line.strip()]
    assert not [line for line in shown if "left of the run" in line or "\u2501" in line]
    assert [line.split()[0] for line in shown[-2:]] == ["1", "2"]
