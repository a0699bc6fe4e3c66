import json
import os

import pytest

from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.history import COLUMNS, saved_line


@pytest.fixture
def runs(tmp_path):
    """Three runs: `a` finished, `b` better and interrupted, `c` stopped before its first epoch."""
    for name, accuracy in (("a", 0.5), ("b", 0.75), ("c", None)):
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True)
        settings = resolve_settings({"epochs": 2, "lr": 0.125, "dataset": "synthetic"})
        (directory / "settings.toml").write_text(settings.to_toml())
        row = [0, 10, 0.1, 2.0, 0.2, "test", 1.9, accuracy, 5.0, 100.0]
        rows = "" if accuracy is None else ",".join(map(str, row)) + "\n"
        (directory / "metrics.csv").write_text(f"{','.join(COLUMNS)}\n{rows}")
        (directory / "model.pt").write_bytes(b"")
        (directory / "training.log").write_text(saved_line("model.pt") if name == "a" else "")
    return tmp_path / "runs"


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_every_run_is_a_line_that_fits_the_screen(quick_cli, runs, columns):
    done = quick_cli("runs", columns=columns)
    heading, *lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["a", "b", "c"]
    assert [line.split()[-1] for line in lines] == ["finished", "interrupted", "interrupted"]
    assert max(map(len, [heading, *lines])) <= columns
    assert ("recipe" in heading) == (columns == 120)


def test_the_split_of_an_accuracy_is_said(quick_cli, runs):
    table = runs / "b" / "metrics.csv"
    table.write_text(table.read_text().replace(",test,", ",val,"))
    for columns in (40, 80):
        _, *lines = quick_cli("runs", columns=columns).stdout.splitlines()
        assert "50.00% test " in lines[0]
        assert "75.00% val " in lines[1]
        assert " – " in lines[2]


@pytest.mark.skipif(os.name == "nt", reason="needs permissions")
def test_an_unreadable_folder_hides_no_other_run(quick_cli, runs):
    for folder in (runs.parent, runs, *runs.iterdir()):
        folder.chmod(0o755)
    (runs / "b").chmod(0)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        done = quick_cli("runs")
    finally:
        os.seteuid(user)
        (runs / "b").chmod(0o755)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:3]] == ["a", "c"]
    assert done.stdout.splitlines()[3] == "left out: runs/b cannot be read: Permission denied"


def test_the_data_set_of_an_accuracy_is_said(quick_cli, runs):
    settings = runs / "b" / "settings.toml"
    settings.write_text(settings.read_text().replace('"synthetic"', '"folder"'))
    _, *lines = quick_cli("runs", columns=80).stdout.splitlines()
    assert "50.00% test  synthetic " in lines[0]
    assert "75.00% test  folder " in lines[1]


def test_what_is_said_before_the_name_of_a_subcommand_counts_too(quick_cli, runs):
    runs.rename(runs.with_name("mine"))
    for words in (["show", "b"], ["compare", "a", "b"]):
        after = quick_cli("runs", *words, "--output-dir", "mine", "--json")
        before = quick_cli("runs", "--output-dir", "mine", "--json", *words)
        assert after.returncode == before.returncode == 0, after.stderr
        assert before.stdout == after.stdout != ""
        assert before.stderr == after.stderr


def test_numbers_are_sorted_from_the_largest_and_what_is_missing_comes_last(quick_cli, runs):
    for column in ("accuracy", "eval_accuracy"):
        done = quick_cli("runs", "--sort", column, "--json")
        assert [run["name"] for run in json.loads(done.stdout)] == ["b", "a", "c"]


def test_the_list_is_sorted_by_each_of_its_columns(quick_cli, runs):
    settings = runs / "a" / "settings.toml"
    settings.write_text(settings.read_text().replace('"synthetic"', '"folder"'))
    columns = quick_cli("runs", columns=120).stdout.splitlines()[0]
    for column in columns.replace("data set", "dataset").split():
        done = quick_cli("runs", "--sort", column)
        assert done.returncode == 0, done.stderr
    done = quick_cli("runs", "--sort", "data set", "--json")
    assert [run["name"] for run in json.loads(done.stdout)] == ["a", "b", "c"]


def test_one_run_is_shown_by_name_and_by_path(quick_cli, runs):
    done = quick_cli("runs", "show", "b")
    assert done.stdout == quick_cli("runs", "show", "runs/b").stdout
    assert "accuracy 75.00%, loss 1.9000 (epoch 0)" in done.stdout
    assert "settings   lr 0.125\n" in done.stdout
    document = json.loads(quick_cli("runs", "show", "b", "--json").stdout)
    assert document["settings"]["lr"] == 0.125
    assert document["changed"] == {"dataset": "synthetic", "epochs": 2, "lr": 0.125}
    sizes = {each["name"]: each["size"] for each in document["files"]}
    assert list(sizes) == ["metrics.csv", "model.pt", "settings.toml", "training.log"]
    assert sizes["metrics.csv"] == (runs / "b" / "metrics.csv").stat().st_size
    assert document["settings"]["input_size"] == [3, 32, 32]
    assert document["history"][0]["eval"] == {"split": "test", "accuracy": 0.75, "loss": 1.9}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--sort", "acuracy"], 2, "did you mean 'accuracy'"),
        (["--output-dir", "none"], 1, "there is no folder none"),
        (["--sort", "state", "show", "a"], 2, "--sort orders the list of the runs: leave it out"),
        (["show", "aa"], 1, "there is no run runs/aa (did you mean 'a'?)"),
    ],
)
def test_a_mistake_ends_in_one_line_and_its_exit_status(
    quick_cli, runs, arguments, status, message
):
    done = quick_cli("runs", *arguments)
    assert done.returncode == status
    assert done.stdout == ""
    assert message in done.stderr.replace("\\", "/")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("runs show ", ["a", "b", "c"]),
        ("report runs/b", ["runs/b"]),
        ("runs compare a ", ["a", "b", "c"]),
        ("eval ", ["a", "b", "c"]),
        ("predict x.png --checkpoint b", ["b"]),
        ("train --recipe ref", ["reference"]),
        ("train --model base", ["baseline"]),
        ("train --resume runs/", ["runs/a", "runs/b", "runs/c"]),
    ],
)
def test_the_shell_completes_runs_models_and_recipes(cli, runs, words, completed):
    done = cli(
        _CIFAR_CNN_COMPLETE="complete_bash",
        COMP_WORDS=f"cifar-cnn {words}",
        COMP_CWORD=str(len(words.split(" "))),
    )
    assert done.stdout.split() == completed, done.stderr


def test_the_completed_models_are_the_registrys():
    from cifar_cnn.cli.options import MODELS
    from cifar_cnn.models.registry import BUILT_IN

    assert set(MODELS) == set(BUILT_IN)
