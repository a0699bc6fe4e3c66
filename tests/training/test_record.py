import json

import pytest
from filelock import FileLock

from cifar_cnn.errors import RunError
from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.history import COLUMNS, LOG_END
from cifar_cnn.training.record import find_runs, read_run

ROWS = [
    [0, 10, 0.1, 2.0, 0.2, "val", 1.9, 0.3, 5.0, 100.0],
    [1, 20, 0.1, 1.5, 0.4, "val", 1.2, 0.6, 5.0, 100.0],
    [2, 30, 0.1, 1.4, 0.5, "val", 1.4, 0.5, 5.0, 100.0],
]


def make_run(directory, *, log="", **settings):
    directory.mkdir(parents=True)
    (directory / "settings.toml").write_text(resolve_settings(settings).to_toml())
    lines = [",".join(COLUMNS), *(",".join(map(str, row)) for row in ROWS)]
    (directory / "metrics.csv").write_text("\n".join(lines) + "\n")
    (directory / "training.log").write_text(log)
    (directory / "model.pt").write_bytes(b"")
    (directory / "environment.json").write_text(json.dumps({"parameters": 197922}))
    return directory


def test_a_run_is_read_from_its_files(tmp_path):
    run = read_run(make_run(tmp_path / "a", epochs=3, log=LOG_END))
    assert run.best.epoch == 1
    assert run.entry.model_dump(mode="json") == {
        "name": "a",
        "run": str(tmp_path / "a"),
        "state": "finished",
        "model": "baseline",
        "recipe": "tuned",
        "dataset": "cifar10",
        "epochs": 3,
        "planned_epochs": 3,
        "parameters": 197922,
        "eval": {"split": "val", "accuracy": 0.6, "loss": 1.2},
        "seconds": 15.0,
    }


def test_a_run_is_running_while_its_lock_is_held_and_interrupted_after(tmp_path):
    directory = make_run(tmp_path / "a", log="EPOCH:0")
    with FileLock(directory / ".lock"):
        assert read_run(directory).state == "running"
    assert read_run(directory).state == "interrupted"


def test_a_folder_of_runs_leaves_out_what_it_cannot_read_and_says_so(tmp_path):
    make_run(tmp_path / "b")
    make_run(tmp_path / "a")
    (make_run(tmp_path / "old") / "settings.toml").write_text('fruit = "apple"')
    (tmp_path / "pictures").mkdir()
    runs, refused = find_runs(tmp_path)
    assert [run.name for run in runs] == ["a", "b"]
    assert refused == [
        f"run directory {tmp_path / 'old'} is not of this version: unknown setting 'fruit'"
    ]
    with pytest.raises(RunError, match="there is no folder"):
        find_runs(tmp_path / "none")


@pytest.mark.parametrize("cell", ["foo", "x" * 200_000], ids=["split", "long"])
def test_a_table_with_a_wrong_cell_is_refused_in_one_line(tmp_path, cell):
    table = make_run(tmp_path / "a") / "metrics.csv"
    table.write_text(table.read_text().replace(",val,", f",{cell},"))
    with pytest.raises(RunError, match="is not of this version: "):
        read_run(tmp_path / "a")


def test_nothing_of_torch_is_needed_to_read_runs():
    import subprocess
    import sys

    code = (
        "import sys, cifar_cnn.training.record, cifar_cnn.report.runs\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
