"""Signals, time limits, two runs in one directory: real processes."""

import errno
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
fsync = os.fsync
def slowly(descriptor):
    if "last.pt" in os.readlink(f"/proc/self/fd/{descriptor}"):
        print("here", flush=True)
        time.sleep(30)
    fsync(descriptor)
def arm(event):
    os.fsync = slowly
"""
START = "from cifar_cnn.cli.main import main; main()"


@pytest.fixture
def start(tmp_path, image_folder):
    """Start `cifar-cnn train` in a process of its own, after some code; wait for its "here"."""
    processes = []

    def run(*arguments, code="", wait_for="here"):
        small = ["train", "--dataset", "folder", "--data-dir", image_folder, "--batch-size", 8]
        words = [sys.executable, "-c", code + START, *small, "--name", "a", *arguments]
        process = subprocess.Popen(
            [*map(str, words), "--no-report"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        while wait_for not in process.stdout.readline():
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


def test_a_signal_while_the_network_is_evaluated_saves_the_epoch(start, cli, tmp_path):
    status, output, _ = stop(start("--epochs", 2, code=SLOW_EVALUATION), signal.SIGTERM)
    assert status == 143
    assert output.endswith("last.pt; go on with: cifar-cnn train --resume runs/a\n")
    last = read_checkpoint(tmp_path / "runs" / "a" / "last.pt")
    assert (last.training["epoch"], last.training["batch"]) == (0, 5)
    done = cli("train", "--resume", "runs/a")
    assert done.returncode == 0, done.stderr
    assert "epoch 1:" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to know what is being written")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_and_spoils_nothing(start, cli, tmp_path, number):
    arm = "import cifar_cnn.report.progress as p\nshow = p.RunDisplay._show_row\n"
    arm += "p.RunDisplay._show_row = lambda *a: (show(*a), arm(None))\n"
    process = start("--epochs", 2000, code=SLOW_SAVING + arm)
    process.send_signal(number)
    time.sleep(0.5)
    status, _, errors = stop(process, number)
    assert status == -number
    assert errors == ""
    run = tmp_path / "runs" / "a"
    epochs = read_checkpoint(run / "last.pt").metrics["epoch"] + 1
    assert [*run.glob(".last.pt.*.part")]
    done = cli("train", "--resume", "runs/a", "--epochs", epochs + 1)
    assert done.returncode == 0, done.stderr
    assert not [*run.glob(".*.part")]


def test_max_time_saves_and_ends_with_status_0(cli, image_folder, tmp_path):
    small = ("--dataset", "folder", "--data-dir", image_folder, "--batch-size", 8)
    done = cli("train", *small, "--epochs", 100_000, "--name", "a", "--max-time", 0.001)
    assert done.returncode == 0, done.stderr
    assert "; go on with: cifar-cnn train --resume runs/a" in done.stdout
    assert read_checkpoint(tmp_path / "runs" / "a" / "last.pt").training["batch"] >= 1


def test_a_second_run_in_the_same_directory_is_refused(start, cli, image_folder, tmp_path):
    first = start("--epochs", 2000, wait_for="epoch 0:")
    small = ("--dataset", "folder", "--data-dir", image_folder, "--batch-size", 8)
    for way in (["--exist-ok"], ["--resume", "auto", "--epochs", 2000]):
        done = cli("train", *small, "--name", "a", *way)
        assert done.returncode == 1
        assert "runs/a is in use by another process" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    first.kill()
    first.communicate()
    done = cli("train", *small, "--name", "a", "--resume", "auto", "--max-time", 0)
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(tmp_path / "runs" / "a" / "last.pt")


@pytest.mark.parametrize("way", [[], ["--exist-ok"], ["--resume", "auto"]])
def test_a_second_run_is_refused_while_the_first_still_decodes_its_images(
    start, cli, image_folder, tmp_path, way
):
    first = start(code=SLOW_DECODING)
    done = cli("train", "--dataset", "folder", "--data-dir", image_folder, "--name", "a", *way)
    assert done.returncode == 1
    assert "runs/a is in use by another process" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    first.kill()
    first.communicate()
    small = ("--dataset", "folder", "--data-dir", image_folder, "--batch-size", 8)
    done = cli("train", *small, "--name", "a", "--epochs", 1, "--no-report")
    assert done.returncode == 0, done.stderr  # what the killed one left does not block the name


def test_a_closed_pipe_stops_the_run_with_an_explanation_and_it_goes_on(start, cli, tmp_path):
    process = start("--epochs", 3, wait_for="\n")
    process.stdout.close()
    with process.stderr:
        errors = process.stderr.read()
    assert process.wait() == 1
    assert errors.startswith("cifar-cnn: stopped, as standard output was closed: --resume")
    assert len(errors.splitlines()) == 1
    process.stdout = process.stderr = None
    done = cli("train", "--resume", "runs/a", "--quiet", "--no-report")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_cannot_be_written_is_one_line(quick_cli, image_folder, failing_disk):
    failing_disk.fail("open", errno.EACCES, "settings.toml")
    done = quick_cli(
        "train", "--dataset", "folder", "--data-dir", image_folder, "--epochs", 1, "--name", "a"
    )
    assert done.returncode == 1
    assert done.stderr.endswith("settings.toml cannot be written: Permission denied\n")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("arguments", [["train"], ["summary"], ["receptive-field"]])
def test_an_output_that_cannot_be_written_is_one_line(cli, image_folder, tmp_path, arguments):
    if arguments == ["train"]:
        arguments += ["--dataset", "folder", "--data-dir", image_folder, "--epochs", 1]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "cifar_cnn", *map(str, arguments)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            check=False,
        )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "No space left on device" in done.stderr
