"""Standard streams that are closed or full, and environments that others have set."""

import json
import os
import re
import subprocess
import sys

import pytest

POSIX = pytest.mark.skipif(os.name == "nt", reason="the shell of POSIX closes the streams")
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device")  # noqa: PTH110
TRAIN = "train --dataset folder --data-dir images --epochs 1 --batch-size 16 --no-report"


@pytest.fixture
def shell(tmp_path):
    """Run a line of the shell in the test's folder."""

    def run(line, **environment):
        return subprocess.run(
            ["/bin/sh", "-c", f'"{sys.executable}" -m cifar_cnn {line}'],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | environment,
            check=False,
        )

    return run


@POSIX
@pytest.mark.parametrize("command", ["--help", "summary --json", f"{TRAIN} --dry-run"])
def test_a_closed_standard_output_is_one_line_and_nothing_is_done(shell, tmp_path, command):
    done = shell(f"{command} >&-")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("cifar-cnn: standard output is closed")
    assert list(tmp_path.iterdir()) == []


@POSIX
def test_a_closed_standard_error_leaves_the_document_whole(shell):
    done = shell("summary --json 2>&-")
    assert done.returncode == 0
    assert json.loads(done.stdout)["budget"]["passed"] is True


@POSIX
def test_a_closed_standard_input_is_an_empty_image(shell, untrained_file):
    done = shell(f"predict - --checkpoint {untrained_file} <&-")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "cifar-cnn: standard input is closed or empty: there is no image in it\n"


@FULL
@pytest.mark.parametrize(
    ("line", "unbuffered"),
    [("summary", ""), ("summary", "1"), ("summary --json", ""), (TRAIN, ""), (TRAIN, "1")],
)
def test_a_full_standard_output_is_said(shell, image_folder, line, unbuffered):
    done = shell(f"{line} >/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr == "cifar-cnn: [Errno 28] No space left on device\n"


@FULL
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("report none", 1, "there is no run runs/none"),
        (f"report {300 * 'x'}", 1, f"…{60 * 'x'} cannot be used: File name too long"),
    ],
)
def test_a_mistake_is_one_line_where_its_document_finds_no_room(
    shell, line, status, message, unbuffered
):
    done = shell(f"{line} --json >/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (status, f"cifar-cnn: {message}\n")


@pytest.mark.parametrize(
    "environment", [{"COLUMNS": "0"}, {"COLUMNS": "00", "PYTHONIOENCODING": "ascii"}]
)
def test_a_screen_of_unknown_width_or_few_letters_is_written_on(cli, environment):
    done = cli("summary", PYTHONUTF8="0", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "197,922" in done.stdout
    assert "budget met" in done.stdout


def test_what_others_left_in_the_environment_does_no_harm(cli, image_folder):
    """A notebook's backend, half of a launcher's variables, and colors forced into a file."""
    done = cli(
        *TRAIN.split(),
        "--report",
        MPLBACKEND="module://matplotlib_inline.backend_inline",
        TORCHELASTIC_RUN_ID="none",
        FORCE_COLOR="1",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "epoch 0: train loss " in done.stdout
    assert not re.search(r"\x1b\[[^m]*[A-Za-ln-z]", done.stdout)
