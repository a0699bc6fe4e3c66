import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

NO_SIGNALS = pytest.mark.skipif(os.name == "nt", reason="Windows cannot send these signals")


@pytest.fixture
def small(image_folder):
    data = ("--dataset", "folder", "--data-dir", image_folder)
    return (*data, "--batch-size", 8, "--epochs", 2, "--no-report")


def test_a_run_prints_one_plain_line_an_epoch_and_no_control_codes(cli, small, tmp_path):
    done = cli("train", *small, "--name", "a")
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[1:3]] == ["epoch 0", "epoch 1"]
    assert lines[3] == f"saved {Path('runs/a/model.pt')}"
    assert len(lines) == 4
    assert not CONTROL.search(done.stdout)
    assert (tmp_path / "runs" / "a" / "model.pt").exists()


def test_a_quiet_run_says_nothing_and_writes_the_same_log(cli, small, tmp_path):
    done = cli("train", *small, "--name", "a", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    cli("train", *small, "--name", "b", COLUMNS="40")
    logs = [(tmp_path / "runs" / name / "training.log").read_bytes() for name in "ab"]
    assert logs[0] == logs[1]


def test_the_printed_config_is_a_config_and_nothing_runs(quick_cli, small, tmp_path):
    first = quick_cli("train", *small, "--recipe", "reference", "--lr", "0.125", "--print-config")
    (tmp_path / "run.toml").write_text(first.stdout)
    second = quick_cli("train", "--config", "run.toml", "--print-config")
    assert first.returncode == second.returncode == 0
    assert second.stdout == first.stdout
    assert "lr = 0.125" in first.stdout
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_writes_nothing(quick_cli, small, tmp_path):
    done = quick_cli("train", *small, "--dry-run")
    assert done.returncode == 0
    assert "nothing was written" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_whose_loss_is_not_finite_is_one_line(quick_cli, small, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self): super().__init__(nn.Flatten(), nn.Linear(3072, 3))\n"
        "    def forward(self, x): return super().forward(x) * (1e39 if self.training else 1)\n"
    )
    done = quick_cli("train", *small, "--model", "net.py", "--dry-run", "--json")
    assert done.returncode == 1
    assert "the loss of the first batch is nan: training would stop there" in done.stderr


def test_a_finished_run_resumed_says_so_and_changes_nothing(quick_cli, small, tmp_path):
    quick_cli("train", *small, "--name", "a")
    files = {path: path.read_bytes() for path in (tmp_path / "runs/a").iterdir()}
    done = quick_cli("train", *small, "--name", "a", "--resume", "auto")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{Path('runs/a')} is already finished"]
    assert {path: path.read_bytes() for path in (tmp_path / "runs/a").iterdir()} == files
    for name in ("last.pt", "previous.pt"):
        (tmp_path / "runs/a" / name).unlink()
        del files[tmp_path / "runs/a" / name]
    done = quick_cli("train", *small, "--name", "a", "--resume", "auto")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"cifar-cnn: run directory {Path('runs/a')} exists and has no checkpoint to go on from: "
        "choose another --name, or --exist-ok to start it again\n"
    )
    assert {path: path.read_bytes() for path in (tmp_path / "runs/a").iterdir()} == files


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--epochs", "0"], 2, "setting epochs = 0 is invalid"),
        (["--model", "basline"], 2, "did you mean 'baseline'"),
        (["--config", "none.toml"], 2, "config file none.toml cannot be read"),
        (["--resume", "none"], 1, "checkpoint none cannot be read"),
        (["--device", "cuad"], 2, "or mps (did you mean 'cuda'?)"),
        (["--device", "cuda:99"], 2, "device cuda:99 is not on this machine"),
        (["--data-dir", "none"], 1, "folder none does not exist"),
        (["--output-dir", "file"], 1, "cannot be written"),
    ],
)
def test_a_mistake_ends_in_one_line_and_its_exit_status(
    quick_cli, small, tmp_path, arguments, status, message
):
    (tmp_path / "file").write_text("not a folder")
    done = quick_cli("train", *small, *arguments)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_debug_shows_the_traceback_wherever_it_stands(cli, small):
    for arguments in (["--debug", "train", "--lr", "-1"], ["train", "--lr", "-1", "--debug"]):
        assert "Traceback" in cli(*arguments).stderr
    assert "Traceback" not in cli("train", "--lr", "-1").stderr


@NO_SIGNALS
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_step_and_resume_goes_on(cli, small, tmp_path, number, status):
    command = [sys.executable, "-m", "cifar_cnn", "train", *map(str, small), "--name", "a"]
    command += ["--epochs", "2000"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while "epoch 0:" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        started = time.monotonic()
        output, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors == ""
    assert time.monotonic() - started < 5
    resume = str(Path("runs/a"))
    last = output.splitlines()[-1]
    assert last.startswith("stopped after ")
    assert last.endswith(
        f"; saved {Path('runs/a/last.pt')}; go on with: cifar-cnn train --resume {resume}"
    )
    rows = (tmp_path / resume / "metrics.csv").read_text().splitlines()
    done = cli("train", "--resume", resume, "--epochs", len(rows) + 1)
    assert done.returncode == 0, done.stderr
    again = (tmp_path / resume / "metrics.csv").read_text().splitlines()
    assert again[: len(rows)] == rows
    assert len(again) == len(rows) + 2


@NO_SIGNALS
def test_a_stopped_run_prints_its_json_document_too(small, tmp_path):
    command = [sys.executable, "-m", "cifar_cnn", "train", *map(str, small), "--name", "a"]
    command += ["--epochs", "2000", "--json"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        rows = tmp_path / "runs" / "a" / "metrics.csv"
        while not rows.exists() or len(rows.read_text().splitlines()) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output, warned = process.communicate(timeout=60)
    assert process.returncode == 130
    document = json.loads(output)
    assert document["model_file"] is None
    assert 5 <= document["steps"] <= document["epochs"] * 5 + 5
    assert warned.startswith("stopped after ")
    assert warned.endswith(f"go on with: cifar-cnn train --resume {Path('runs/a')}\n")
    assert document["eval"]["split"] == "test"


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [40, 80, 120])
def test_on_a_terminal_the_table_grows_and_no_line_is_wider_than_the_screen(
    small, tmp_path, columns
):
    import pty

    pyte = pytest.importorskip("pyte", reason="needs pyte, of the extra `test`")
    screen = pyte.HistoryScreen(columns, 40)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "LINES": "40", "TERM": "xterm"}
    command = [sys.executable, "-m", "cifar_cnn", "train", *map(str, small), "--name", "a"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave, env=environment
    ) as process:
        os.close(slave)
        while True:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:
                    break
                if not data:
                    break
                stream.feed(data)
            elif process.poll() is not None:
                break
        assert process.wait() == 0
    os.close(master)
    shown = [line.rstrip() for line in screen.display if line.strip()]
    heading = next(index for index, line in enumerate(shown) if "test %" in line)
    assert [line.split()[0] for line in shown[heading + 1 : heading + 3]] == ["0", "1"]
    assert shown[heading + 3].startswith("saved ")
    assert len({len(line) for line in shown[heading : heading + 3]}) == 1


def test_the_recipe_of_another_network_says_which_one_is_trained(quick_cli):
    flags = ("train", "--dataset", "synthetic", "--limit-train", 200, "--dry-run")
    note = "note: recipe best is for --model compact; baseline is trained with it"
    assert note in quick_cli(*flags, "--recipe", "best").stdout.splitlines()
    for more in (["--recipe", "best", "--model", "compact"], ["--recipe", "reference"], []):
        assert "is trained with it" not in quick_cli(*flags, *more).stdout
