import io

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
    assert "epoch 2 loss 0.5000 accuracy 75.00%" in said
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
