import json
import os
import re
import subprocess
import sys

import pytest

POSIX = pytest.mark.skipif(os.name == "nt", reason="the shell of POSIX closes the streams")
COMMANDS = ["--help", "summary --json", "train --dataset synthetic --dry-run", "runs"]


def shell(tmp_path, line, **environment):
    return subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -m cifar_cnn {line}'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | environment,
        check=False,
    )


@POSIX
@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_standard_output_is_one_line_and_nothing_is_done(tmp_path, command):
    done = shell(tmp_path, f"{command} >&-")
    assert done.returncode == 1
    assert done.stderr.startswith("cifar-cnn: standard output is closed")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@POSIX
def test_a_closed_standard_error_leaves_the_document_whole(tmp_path):
    done = shell(tmp_path, "summary --json 2>&-")
    assert done.returncode == 0
    assert json.loads(done.stdout)["budget"]["passed"] is True


@POSIX
def test_a_closed_standard_input_is_an_empty_image(tmp_path, untrained_file):
    done = shell(tmp_path, f"predict - --checkpoint {untrained_file} <&-")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@POSIX
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device")  # noqa: PTH110
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("flags", ["", "--json"])
def test_a_full_standard_output_is_said(tmp_path, flags, unbuffered):
    done = shell(tmp_path, f"summary {flags} >/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "cifar-cnn: [Errno 28] No space left on device"


@POSIX
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device")  # noqa: PTH110
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("report none", 1, "there is no run runs/none"),
        ("summary --model none", 2, "unknown model 'none': give one of baseline, compact, or "
         "module:attr, or path.py:attr"),
        (f"report {300 * 'x'}", 1, f"…{60 * 'x'} cannot be used: File name too long"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_where_its_document_finds_no_room(
    tmp_path, line, status, said, unbuffered
):
    done = shell(tmp_path, f"{line} --json >/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (status, f"cifar-cnn: {said}\n")


@pytest.mark.parametrize("value", ["0", "00"])
def test_a_screen_of_no_columns_is_one_of_unknown_width(cli, value):
    done = cli("summary", COLUMNS=value)
    assert done.returncode == 0
    assert "197,922" in done.stdout
    assert "budget met" in done.stdout


@pytest.mark.parametrize(
    "left_over",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"TORCHELASTIC_RUN_ID": "none"},
    ],
)
def test_what_a_notebook_or_a_launcher_left_in_the_environment_does_no_harm(
    cli, image_folder, left_over
):
    flags = ["--dataset", "folder", "--data-dir", image_folder, "--epochs", 1, "--batch-size", 16]
    done = cli("train", *flags, "--name", "a", "--limit-train", 6, **left_over)
    assert (done.returncode, done.stderr) == (0, "")


def test_colors_that_are_forced_into_a_file_bring_no_frames(cli, untrained_file, image_folder):
    data = ("--dataset", "folder", "--data-dir", image_folder, "--epochs", 1, "--no-report")
    done = cli("train", *data, FORCE_COLOR="1")
    assert done.returncode == 0, done.stderr
    assert "epoch 0: train loss " in done.stdout
    for text in (done.stdout, done.stderr):
        assert not re.search(r"\x1b\[[^m]*[A-Za-ln-z]", text)
