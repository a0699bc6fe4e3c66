import pytest

from cifar_cnn.errors import RunError
from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.run_directory import RunDirectory


def test_a_second_one_is_refused_until_the_first_is_left(tmp_path):
    with RunDirectory(tmp_path / "run", replace=False) as first:
        first.write_settings(resolve_settings())
        with pytest.raises(RunError, match="in use by another process"):
            RunDirectory(tmp_path / "run", replace=True)
        assert (tmp_path / "run" / "settings.toml").exists()
    with RunDirectory(tmp_path / "run", replace=True):
        assert not (tmp_path / "run" / "settings.toml").exists()


def test_leftovers_of_killed_writes_go_and_other_files_stay(tmp_path):
    for name in (".last.pt.123.part", "notes.txt"):
        (tmp_path / name).touch()
    with RunDirectory(tmp_path, replace=True):
        assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", ".lock"}


def test_a_process_that_does_not_write_touches_nothing(tmp_path):
    with RunDirectory(tmp_path / "run", replace=True, writes=False) as directory:
        directory.write_settings(resolve_settings())
        directory.write_history([])
    assert not (tmp_path / "run").exists()
