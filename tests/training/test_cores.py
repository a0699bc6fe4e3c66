import time

from cifar_cnn.training import cores
from cifar_cnn.training.cores import CoreTime


def work(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_run_that_gets_too_little_of_its_threads_time_is_told_once(monkeypatch):
    monkeypatch.setattr(cores, "SHORTEST", 0.1)
    measured = CoreTime()
    time.sleep(0.2)
    work(0.1)
    measured.stop(3, threads=1)
    measured.stop(4, threads=1)
    (note,) = measured.notes
    assert note.startswith("in epoch 3 this run had ")
    assert "% of the processor time it could use: other programs use the cores" in note


def test_nothing_is_said_of_a_run_that_has_its_cores_nor_of_a_short_epoch(monkeypatch):
    measured = CoreTime()
    time.sleep(0.2)
    measured.stop(0, threads=2)
    assert measured.notes == []
    monkeypatch.setattr(cores, "SHORTEST", 0.0)
    monkeypatch.setattr(cores, "ENOUGH", 0.05)
    measured = CoreTime()
    work(0.2)
    measured.stop(0, threads=1)
    assert measured.notes == []


def test_a_quota_is_named_as_what_keeps_the_cores_from_a_run(monkeypatch, tmp_path):
    monkeypatch.setattr(cores, "SHORTEST", 0.1)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    for quota, cause in (
        ("150000 100000\n", "a CPU quota allows 1.5 of 4 cores"),
        ("max 100000\n", "other programs use the cores"),
        ("400000 100000\n", "other programs use the cores"),
    ):
        (tmp_path / "cpu.max").write_text(quota)
        measured = CoreTime()
        time.sleep(0.2)
        measured.stop(0, threads=4)
        assert f"could use: {cause}" in measured.notes[0]
