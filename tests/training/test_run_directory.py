import errno
import os

import pytest

from cifar_cnn.errors import RunError
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.archive import save_archive
from cifar_cnn.training.history import COLUMNS
from cifar_cnn.training.run_directory import RunDirectory
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


@pytest.fixture
def make(tmp_path):
    """Make a folder of these files."""

    def write(**files):
        for name, content in files.items():
            (tmp_path / "run").mkdir(exist_ok=True)
            (tmp_path / "run" / name).write_bytes(content)
        return tmp_path / "run"

    return write


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_one_is_refused_until_the_first_is_left(tmp_path):
    with RunDirectory(tmp_path / "run", replace=False) as first:
        first.begin()
        first.write_start(resolve_settings())
        with pytest.raises(RunError, match="in use by another process"):
            RunDirectory(tmp_path / "run", replace=True)
        assert (tmp_path / "run" / "settings.toml").exists()
    with RunDirectory(tmp_path / "run", replace=True) as second:
        assert (tmp_path / "run" / "settings.toml").exists()
        second.begin()
        assert not (tmp_path / "run" / "settings.toml").exists()


def test_leftovers_of_killed_writes_go_and_other_files_stay(make):
    others = (".movie.mp4.part", ".last.pt.part", ".notes.txt.12.part")
    run = make(**OURS, **dict.fromkeys((".last.pt.123.part", "notes.txt", *others), b""))
    with RunDirectory(run, replace=True) as directory:
        directory.begin()
        assert {path.name for path in run.iterdir()} == {"notes.txt", ".lock", *others}


def test_what_tensorboard_was_told_goes_with_the_run_and_nothing_else(make):
    run = make(**OURS)
    for events, files in {"tensorboard": ["events.out.tfevents.1.host"], "mine": ["a"]}.items():
        (run / events).mkdir()
        for name in files:
            (run / events / name).touch()
    with RunDirectory(run, replace=True) as directory:
        directory.begin()
    assert not (run / "tensorboard").exists()
    assert (run / "mine" / "a").exists()


def test_a_process_that_does_not_write_touches_nothing(tmp_path):
    with RunDirectory(tmp_path / "run", replace=True, writes=False) as directory:
        directory.begin()
        directory.write_start(resolve_settings(), b"code")
        directory.write_history([])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("names", [[name] for name in THEIRS] + [[*THEIRS]])
@pytest.mark.parametrize("way", [{}, {"replace": True}, {"replace": "unsaved"}, {"resume": True}])
def test_a_folder_that_is_no_run_is_refused_and_untouched_whatever_is_asked(make, names, way):
    folder = make(**{name: THEIRS[name] for name in names})
    before = contents(folder)
    with pytest.raises(RunError, match=r"run exists and is no run of this program"):
        RunDirectory(folder, **way)
    assert contents(folder) == before


@pytest.mark.parametrize("theirs", ["settings.toml", "metrics.csv"])
def test_a_network_of_ours_among_files_of_the_users_is_no_run(make, theirs):
    folder = make(**{"last.pt": save_archive({}), theirs: THEIRS[theirs]})
    for way in ({"replace": True}, {"resume": True}):
        with pytest.raises(RunError, match="is no run of this program"):
            RunDirectory(folder, **way)


@pytest.mark.parametrize("names", [["model.pt"], ["metrics.csv"], ["metrics.csv", "report.html"]])
def test_anything_that_a_run_saved_keeps_another_from_starting_there(make, names):
    run = make(**{name: OURS.get(name, b"") for name in names})
    for way in ({}, {"replace": "unsaved"}):
        with pytest.raises(RunError, match="exists"):
            RunDirectory(run, **way)
    with RunDirectory(run, replace=True) as directory:
        directory.begin()
        assert not {path.name for path in run.iterdir()} & {*FILES}


def test_a_run_that_was_stopped_before_its_first_epoch_may_start_again(make):
    table = f"{','.join(COLUMNS)}\n".encode()
    run = make(**{**OURS, "metrics.csv": table, "training.log": b"", ".lock": b""})
    (run / "model.pt").unlink()
    with pytest.raises(RunError, match="exists"):
        RunDirectory(run)
    with RunDirectory(run, replace="unsaved"):
        pass


@pytest.mark.parametrize("there", [[], ["run"], ["run", "run/.lock", "run/.last.pt.12.part"]])
def test_a_place_that_holds_nothing_is_free_and_left_as_it_was(tmp_path, there):
    for name in there:
        (tmp_path / name).mkdir() if name == "run" else (tmp_path / name).touch()
    before = {*tmp_path.rglob("*")}
    with RunDirectory(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").exists()
    assert {*tmp_path.rglob("*")} == before


def test_folders_that_were_made_for_nothing_go_again_and_no_others(tmp_path):
    (tmp_path / "old").mkdir()
    with RunDirectory(tmp_path / "old" / "new" / "run"):
        pass
    assert [*tmp_path.rglob("*")] == [tmp_path / "old"]


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(RunError, match="run is a file, no folder"):
        RunDirectory(tmp_path / "run", replace=True)


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS])
def test_without_locks_the_run_goes_on_and_says_so(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with RunDirectory(tmp_path / "run") as directory:
        directory.begin()
        directory.write_start(resolve_settings())
        (note,) = directory.notes
    assert "run is on a file system without locks" in note
    assert contents(tmp_path / "run").keys() <= {"settings.toml", ".lock"}


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
def test_a_lock_that_fails_leaves_no_folder(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(RunError, match="cannot be written: Input/output error"):
        RunDirectory(tmp_path / "runs" / "run")
    assert not [*tmp_path.iterdir()]
