"""Signals, time limits, two runs in one directory: real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cifar_cnn.storage.checkpoint import read_checkpoint

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs signals between processes")

SLOW_DECODING = """
import time, cifar_cnn.data.images as folder
read_image = folder.read_image
def slowly(*arguments):
    print("here", flush=True)
    time.sleep(1)
    return read_image(*arguments)
folder.read_image = slowly
"""
SLOW_EVALUATION = """
import time, cifar_cnn.inference.trained as trained
trained.BATCH_SIZE = {"cpu": 1}
log_probabilities = trained.log_probabilities
def slowly(*arguments):
    print("here", flush=True)
    time.sleep(1)
    return log_probabilities(*arguments)
trained.log_probabilities = slowly
"""
SLOW_SAVING = """
import os, time, cifar_cnn.training.run_directory as run_directory
import cifar_cnn.report.progress as p
fsync, show = os.fsync, p.RunDisplay._show_row
def slowly(descriptor):
    if "last.pt" in os.readlink(f"/proc/self/fd/{descriptor}"):
        print("here", flush=True)
        time.sleep(30)
    fsync(descriptor)
def show_and_arm(*arguments):
    show(*arguments)
    os.fsync = slowly
p.RunDisplay._show_row = show_and_arm
"""
START = "from cifar_cnn.cli.main import main; main()"
SMALL = ("--dataset", "folder", "--data-dir", "images", "--batch-size", 8, "--name", "a")


@pytest.fixture
def start(tmp_path, image_folder):
    """Start `cifar-cnn train` in a process of its own, after some code; wait for its "here"."""
    processes = []

    def run(*arguments, code="", wait_for="here"):
        words = [sys.executable, "-c", code + START, "train", *SMALL, *arguments, "--no-report"]
        process = subprocess.Popen(
            [*map(str, words)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        while wait_for and wait_for not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def seconds_in_queue(process):
    """Return how long the process has been ready to run, and another ran (Linux; else 0)."""
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):  # it has ended
        return 0.0


def stop(process, number):
    """Send the signal; return exit code, output, errors; within 5 seconds.

    The time for which other programs kept it from the processor is not counted.
    """
    process.send_signal(number)
    started = time.monotonic()
    before = waited = seconds_in_queue(process)
    while process.poll() is None and time.monotonic() - started < 60:
        waited = max(waited, seconds_in_queue(process))
        time.sleep(0.02)
    output, errors = process.communicate(timeout=1)
    assert time.monotonic() - started - (waited - before) < 5
    return process.returncode, output, errors


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_images_are_decoded_stops_at_once(start, tmp_path, number, status):
    returned, _, errors = stop(start(code=SLOW_DECODING), number)
    assert returned == status
    assert errors == "cifar-cnn: stopped before the first step; nothing was changed\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_step_and_resume_goes_on(
    start, quick_cli, tmp_path, number, status
):
    process = start("--epochs", 2000, wait_for="epoch 0:")
    returned, output, errors = stop(process, number)
    assert (returned, errors) == (status, "")
    last = output.splitlines()[-1]
    assert last.startswith("stopped after ")
    assert last.endswith("; saved runs/a/last.pt; go on with: cifar-cnn train --resume runs/a")
    rows = (tmp_path / "runs/a/metrics.csv").read_text().splitlines()
    done = quick_cli("train", "--resume", "runs/a", "--epochs", len(rows) + 1)
    assert done.returncode == 0, done.stderr
    again = (tmp_path / "runs/a/metrics.csv").read_text().splitlines()
    assert again[: len(rows)] == rows
    assert len(again) == len(rows) + 2


def test_a_stopped_run_prints_its_json_document_too(start, tmp_path):
    process = start("--epochs", 2000, "--json", wait_for="")
    rows = tmp_path / "runs" / "a" / "metrics.csv"
    while not rows.exists() or len(rows.read_text().splitlines()) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    status, output, errors = stop(process, signal.SIGINT)
    assert status == 130
    document = json.loads(output)
    assert document["model_file"] is None
    assert 5 <= document["steps"] <= document["epochs"] * 5 + 5
    assert errors.startswith("stopped after ")
    assert errors.endswith("go on with: cifar-cnn train --resume runs/a\n")
    assert document["eval"]["split"] == "test"


def test_a_signal_while_the_network_is_evaluated_saves_the_epoch(start, quick_cli, tmp_path):
    status, output, _ = stop(start("--epochs", 2, code=SLOW_EVALUATION), signal.SIGTERM)
    assert status == 143
    assert output.endswith("last.pt; go on with: cifar-cnn train --resume runs/a\n")
    last = read_checkpoint(tmp_path / "runs" / "a" / "last.pt")
    assert (last.training["epoch"], last.training["batch"]) == (0, 5)
    done = quick_cli("train", "--resume", "runs/a")
    assert done.returncode == 0, done.stderr
    assert "epoch 1:" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to know what is being written")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_and_spoils_nothing(start, quick_cli, tmp_path, number):
    process = start("--epochs", 2000, code=SLOW_SAVING)
    process.send_signal(number)
    time.sleep(0.5)
    status, _, errors = stop(process, number)
    assert (status, errors) == (-number, "")
    run = tmp_path / "runs" / "a"
    epochs = read_checkpoint(run / "last.pt").metrics["epoch"] + 1
    assert [*run.glob(".last.pt.*.part")]
    done = quick_cli("train", "--resume", "runs/a", "--epochs", epochs + 1)
    assert done.returncode == 0, done.stderr
    assert not [*run.glob(".*.part")]


def test_max_time_saves_and_ends_with_status_0(quick_cli, image_folder, tmp_path):
    done = quick_cli("train", *SMALL, "--epochs", 100_000, "--max-time", 0.001)
    assert done.returncode == 0, done.stderr
    assert "; go on with: cifar-cnn train --resume runs/a" in done.stdout
    assert read_checkpoint(tmp_path / "runs" / "a" / "last.pt").training["batch"] >= 1


def test_a_second_run_is_refused_while_the_first_still_decodes_its_images(start, quick_cli):
    first = start(code=SLOW_DECODING)
    for way in ([], ["--exist-ok"], ["--resume", "auto"]):
        done = quick_cli("train", *SMALL, *way)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "runs/a is in use by another process" in done.stderr
    first.kill()
    first.communicate()
    done = quick_cli("train", *SMALL, "--epochs", 1, "--no-report")
    assert done.returncode == 0, done.stderr  # what the killed one left does not block the name


def test_a_closed_pipe_stops_the_run_with_an_explanation_and_it_goes_on(start, quick_cli):
    process = start("--epochs", 3, wait_for="\n")
    process.stdout.close()
    with process.stderr:
        errors = process.stderr.read()
    assert process.wait() == 1
    assert errors.startswith("cifar-cnn: stopped, as standard output was closed: --resume")
    assert len(errors.splitlines()) == 1
    process.stdout = process.stderr = None
    done = quick_cli("train", "--resume", "runs/a", "--quiet", "--no-report")
    assert (done.returncode, done.stderr) == (0, "")
