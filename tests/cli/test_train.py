import errno
import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
SMALL = (
    *("--dataset", "folder", "--data-dir", "images", "--batch-size", 8, "--epochs", 2),
    *("--no-report", "--name", "a"),
)


@pytest.fixture
def folder(image_folder, tmp_path):
    """The test's folder, which has `images`."""
    return tmp_path


def test_a_run_prints_one_plain_line_an_epoch_and_no_control_codes(cli, folder):
    done = cli("train", *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[1:3]] == ["epoch 0", "epoch 1"]
    assert lines[3] == f"saved {Path('runs/a/model.pt')}"
    assert len(lines) == 4
    assert not CONTROL.search(done.stdout)
    assert (folder / "runs/a/model.pt").exists()


def test_a_quiet_run_says_nothing_and_writes_the_same_log(quick_cli, folder):
    done = quick_cli("train", *SMALL, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    log = (folder / "runs/a/training.log").read_bytes()
    quick_cli("train", *SMALL, "--exist-ok", columns=40)
    assert (folder / "runs/a/training.log").read_bytes() == log


def test_the_printed_config_is_a_config_and_nothing_runs(quick_cli, tmp_path):
    first = quick_cli("train", *SMALL, "--recipe", "reference", "--lr", "0.125", "--print-config")
    (tmp_path / "run.toml").write_text(first.stdout)
    second = quick_cli("train", "--config", "run.toml", "--print-config")
    assert first.returncode == second.returncode == 0
    assert second.stdout == first.stdout
    assert "lr = 0.125" in first.stdout
    assert not (tmp_path / "runs").exists()


def test_a_second_process_refuses_json_beside_a_printed_config_too(quick_cli, monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    assert quick_cli("train", "--print-config").returncode == 0
    done = quick_cli("train", "--print-config", "--json")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_dry_run_whose_loss_is_not_finite_is_one_line(quick_cli, folder):
    (folder / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self): super().__init__(nn.Flatten(), nn.Linear(3072, 3))\n"
        "    def forward(self, x): return super().forward(x) * (1e39 if self.training else 1)\n"
    )
    done = quick_cli("train", *SMALL, "--model", "net.py", "--dry-run", "--json")
    assert done.returncode == 1
    assert "the loss of the first batch is nan: training would stop there" in done.stderr


def test_find_lr_suggests_a_rate_near_the_recipes_and_writes_its_picture_alone(quick_cli, tmp_path):
    flags = ("--dataset", "synthetic", "--limit-train", 600, "--batch-size", 16)
    done = quick_cli("train", *flags, "--name", "a", "--find-lr", "--plot", "rates.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert [each.name for each in tmp_path.iterdir()] == ["rates.png"]
    with Image.open("rates.png") as picture:
        assert (picture.format, picture.width > 900) == ("PNG", True)
    number = r"([0-9.e-]+)"
    expected = (
        rf"loss falls fastest at learning rate {number}\n"
        rf"loss is lowest at {number}\n"
        rf"suggestion, midway between the two, for a peak: --lr {number} \(now 0.2\)\n"
        rf"loss (?:diverges from|does not diverge up to) {number}\n"
        "saved rates.png\n"
    )
    suggestion = float(re.fullmatch(expected, done.stdout)[3])
    scaled = 0.2 * 16 / 128  # as many times less as the batch is smaller (Goyal et al., 2017)
    assert scaled / 4 < suggestion < scaled * 4


def test_a_finished_run_resumed_says_so_and_changes_nothing(quick_cli, folder):
    run = folder / "runs" / "a"
    quick_cli("train", *SMALL)
    files = {path: path.read_bytes() for path in run.iterdir()}
    done = quick_cli("train", *SMALL, "--resume", "auto")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{Path('runs/a')} is already finished"]
    assert {path: path.read_bytes() for path in run.iterdir()} == files
    for name in ("last.pt", "previous.pt"):
        (run / name).unlink()
        del files[run / name]
    done = quick_cli("train", *SMALL, "--resume", "auto")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"cifar-cnn: run directory {Path('runs/a')} exists and has no checkpoint to go on from: "
        "choose another --name, or --exist-ok to start it again\n"
    )
    assert {path: path.read_bytes() for path in run.iterdir()} == files


def test_a_run_directory_that_cannot_be_written_is_one_line(quick_cli, folder, failing_disk):
    failing_disk.fail("open", errno.EACCES, "settings.toml")
    done = quick_cli("train", *SMALL)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.endswith("settings.toml cannot be written: Permission denied\n")


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [40, 120])
def test_on_a_terminal_the_table_grows_and_no_line_is_wider_than_the_screen(folder, columns):
    import pty

    pyte = pytest.importorskip("pyte", reason="needs pyte, of the extra `test`")
    screen = pyte.HistoryScreen(columns, 40)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "LINES": "40", "TERM": "xterm"}
    command = [sys.executable, "-m", "cifar_cnn", "train", *map(str, SMALL)]
    with subprocess.Popen(
        command, cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=environment
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
    rows = [line.rstrip() for line in screen.display if line.strip()]
    heading = next(index for index, line in enumerate(rows) if "test %" in line)
    assert [line.split()[0] for line in rows[heading + 1 : heading + 3]] == ["0", "1"]
    assert rows[heading + 3].startswith("saved ")
    assert len({len(line) for line in rows[heading : heading + 3]}) == 1


def test_the_recipe_of_another_network_says_which_one_is_trained(quick_cli, folder):
    flags = ("train", *SMALL, "--dry-run")
    note = "note: recipe best is for --model compact; baseline is trained with it"
    first, *_, last = quick_cli(*flags, "--recipe", "best").stdout.splitlines()
    assert first == note
    assert last.endswith("; nothing was written")
    assert not (folder / "runs").exists()
    for more in (["--recipe", "best", "--model", "compact"], ["--recipe", "reference"], []):
        assert "is trained with it" not in quick_cli(*flags, *more).stdout
