"""Full disks, folders that cannot be written, and errors of the disk itself, during a whole run."""

import errno
import functools
import shutil
import subprocess

import pytest
import torch

import cifar_cnn
from cifar_cnn import plan_run
from cifar_cnn.errors import RunError
from cifar_cnn.storage.checkpoint import read_checkpoint
from cifar_cnn.training.history import EpochEnded

train = functools.partial(cifar_cnn.train, report=False)

NAMES = (
    "metrics.csv",
    "training.log",
    "last.pt",
    "previous.pt",
    "best.pt",
    "model.pt",
    "curves.png",
)


def after_first_epoch(run, action):
    """Return a listener that keeps last.pt's content after the first epoch and then acts."""
    kept = []

    def listen(event):
        if isinstance(event, EpochEnded) and not kept:
            kept.append((run / "last.pt").read_bytes())
            action()

    return kept, listen


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fills_up_stops_the_run_in_one_line_and_spoils_nothing(
    small_settings, tmp_path, failing_disk, monkeypatch, name
):
    monkeypatch.setattr("cifar_cnn.training.run.best_row", lambda rows: rows[-1])
    run = tmp_path / "run"
    kept, listen = after_first_epoch(run, lambda: failing_disk.fail("write", errno.ENOSPC, name))
    with pytest.raises(RunError, match=f"{name} cannot be written: No space left") as caught:
        train(small_settings(val_size=9, lr=1e-4), run, listeners=[listen])
    assert "\n" not in str(caught.value)
    assert not list(run.glob(".*.part"))
    if name in {"last.pt", "previous.pt", "best.pt"}:
        assert (run / "last.pt").read_bytes() == kept[0]
    for path in run.glob("*.pt"):
        read_checkpoint(path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_write_that_works_the_second_time_costs_nothing(
    small_settings, tmp_path, failing_disk, number
):
    whole = train(small_settings(), tmp_path / "whole").run
    run = tmp_path / "run"
    points = iter(failing_disk.POINTS)

    def listen(event):
        point = next(points, None)
        if point:
            failing_disk.fail(point, number, times=1)

    train(small_settings(), run, listeners=[listen])
    assert failing_disk.times == 0
    one, other = (read_checkpoint(each / "last.pt").state_dict for each in (run, whole))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB; `resize` makes it another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        return subprocess.run(
            [command, *options, folder], capture_output=True, text=True, check=False
        )

    command = shutil.which("mount")
    if command is None:
        pytest.skip("needs the command `mount`")
    done = mount("-t", "tmpfs", "-o", "size=4m", "tmpfs")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder, lambda size: mount("-o", f"remount,size={size}")
    subprocess.run([shutil.which("umount"), folder], check=True)


def test_on_a_disk_that_is_really_full_the_run_goes_on_once_there_is_room(
    small_settings, small_disk, tmp_path
):
    disk, resize = small_disk
    settings = small_settings(epochs=3)
    with pytest.raises(RunError, match=r"cannot be written: No space left on device"):
        train(settings, disk / "run")
    assert not list((disk / "run").glob(".*.part"))
    assert read_checkpoint(disk / "run" / "last.pt").metrics["epoch"] == 0
    resize("40m")
    plan = plan_run({}, resume=disk / "run")
    train(plan.settings, plan.directory, checkpoint=plan.checkpoint)
    whole = train(settings, tmp_path / "whole").run
    one, other = (read_checkpoint(each / "model.pt") for each in (disk / "run", whole))
    assert all(torch.equal(one.state_dict[k], other.state_dict[k]) for k in one.state_dict)
