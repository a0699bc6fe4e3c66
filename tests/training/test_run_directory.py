import errno
import os

import pytest

from cifar_cnn.errors import RunError
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.archive import save_archive
from cifar_cnn.training.history import COLUMNS
from cifar_cnn.training.run_directory import open_run_directory
from cifar_cnn.training.run_files import FILES

OURS = {
    "settings.toml": resolve_settings().to_toml().encode(),
    "metrics.csv": f"{','.join(COLUMNS)}\n0,10\n".encode(),
    "model.pt": save_archive({}),
}
THEIRS = {
    "settings.toml": b'[tool]\nfruit = "apple"\n',
    "metrics.csv": b"date,price\n",
    "best.pt": b"weights",
    "report.html": b"<p>mine</p>",
    ".movie.mp4.part": b"film",
    "notes.txt": b"notes",
}
WAYS = ({}, {"replace": True}, {"replace": "unsaved"}, {"resume": True})


@pytest.fixture
def make(tmp_path):
    """Make a folder of these files."""

    def write(**files):
        for name, content in files.items():
            (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "run" / name).write_bytes(content)
        return tmp_path / "run"

    return write


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def begin(path, **way):
    with open_run_directory(path, **way) as directory:
        directory.begin([], {"settings.toml": OURS["settings.toml"]})
        return directory


def test_a_second_one_is_refused_until_the_first_is_left(tmp_path):
    run = tmp_path / "run"
    with open_run_directory(run) as first:
        first.begin([], {"network.py": b"code"})
        with pytest.raises(RunError, match="in use by another process"):
            begin(run, replace=True)
        assert (run / "network.py").exists()
    with open_run_directory(run, replace=True):
        assert (run / "network.py").exists()
    begin(run, replace=True)
    assert not (run / "network.py").exists()


def test_what_killed_writes_and_tensorboard_left_goes_and_other_files_stay(make):
    others = {".movie.mp4.part", ".last.pt.part", ".notes.txt.12.part", "notes.txt", "mine/a"}
    left = (".last.pt.123.part", "tensorboard/events.out.tfevents.1.host")
    run = make(**OURS, **dict.fromkeys((*others, *left), b""))
    begin(run, replace=True)
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert files == others | {".lock", "settings.toml", "metrics.csv", "training.log"}
    assert not (run / "tensorboard").exists()


def test_a_process_that_does_not_write_touches_nothing(tmp_path):
    begin(tmp_path / "run", replace=True, writes=False).write_history([])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("names", [[name] for name in THEIRS] + [[*THEIRS]])
@pytest.mark.parametrize("way", WAYS)
def test_a_folder_that_is_no_run_is_refused_and_untouched_whatever_is_asked(make, names, way):
    folder = make(**{name: THEIRS[name] for name in names})
    os.utime(folder, (0, 0))
    with pytest.raises(RunError, match=r"run exists and is no run of this program"):
        begin(folder, **way)
    assert contents(folder) == {name: THEIRS[name] for name in names}
    assert folder.stat().st_mtime == 0


@pytest.mark.parametrize("theirs", ["settings.toml", "metrics.csv"])
def test_a_network_of_ours_among_files_of_the_users_is_no_run(make, theirs):
    folder = make(**{"last.pt": save_archive({}), theirs: THEIRS[theirs]})
    for way in WAYS:
        with pytest.raises(RunError, match="is no run of this program"):
            begin(folder, **way)


@pytest.mark.parametrize("names", [["model.pt"], ["metrics.csv"], ["metrics.csv", "report.html"]])
def test_anything_that_a_run_saved_keeps_another_from_starting_there(make, names):
    run = make(**{name: OURS.get(name, b"") for name in names})
    for way in ({}, {"replace": "unsaved"}):
        with pytest.raises(RunError, match="exists"):
            begin(run, **way)
    begin(run, replace=True)
    assert {path.name for path in run.iterdir()} & {*FILES} <= {
        *("settings.toml", "metrics.csv", "training.log")
    }


def test_a_run_that_was_stopped_before_its_first_epoch_may_start_again(tmp_path):
    run = begin(tmp_path / "run").path
    with pytest.raises(RunError, match="exists"):
        begin(run)
    begin(run, replace="unsaved")


def test_a_run_of_an_older_version_that_was_killed_as_it_began_may_start_again(make):
    run = make(**{"settings.toml": OURS["settings.toml"], ".lock": b""})
    with pytest.raises(RunError, match=r"run directory .*run exists"):
        begin(run)
    begin(run, replace="unsaved")


def test_a_run_that_cannot_be_read_is_one_line(make):
    run = make(**OURS)
    (run / "metrics.csv").unlink()
    (run / "metrics.csv").mkdir()
    with pytest.raises(RunError, match="run cannot be read: "):
        begin(run, replace=True)


@pytest.mark.parametrize("there", [[], ["run"], ["run", "run/.lock", "run/.last.pt.12.part"]])
def test_a_place_that_holds_nothing_is_free_and_left_as_it_was(tmp_path, there):
    for name in there:
        (tmp_path / name).mkdir() if name == "run" else (tmp_path / name).touch()
    before = {*tmp_path.rglob("*")}
    for folder in (tmp_path, tmp_path / "new") if not there else (tmp_path,):
        with open_run_directory(folder / "run"):
            assert (folder / "run" / ".lock").exists()
        assert {*tmp_path.rglob("*")} == before


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(RunError, match="run is a file, no folder"):
        begin(tmp_path / "run", replace=True)
    with pytest.raises(RunError, match="run/below cannot be read: Not a directory"):
        begin(tmp_path / "run" / "below")


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EIO])
def test_without_locks_the_run_goes_on_and_says_so_and_other_errors_leave_no_folder(
    tmp_path, monkeypatch, number
):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    run = tmp_path / "runs" / "run"
    if number == errno.EIO:
        with pytest.raises(RunError, match="cannot be written: Input/output error"):
            begin(run)
        assert not [*tmp_path.iterdir()]
    else:
        (note,) = begin(run).notes
        assert "run is on a file system without locks" in note
        assert (run / "settings.toml").exists()
