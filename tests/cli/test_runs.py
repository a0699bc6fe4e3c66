"""`cifar-cnn runs`: the list, one run, and several beside one another."""

import json
import os

import pytest

from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.history import COLUMNS, LOG_END


@pytest.fixture
def add_run(tmp_path):
    """Write a run of three epochs with these accuracies and settings."""

    def add(name, accuracies, split="test", parameters=197_922, *, finished=True, **settings):
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True)
        values = {"epochs": 3, "dataset": "synthetic"} | settings
        (directory / "settings.toml").write_text(resolve_settings(values).to_toml())
        rows = [
            [epoch, epoch + 1, 0.1, 2.0, 0.2, split, 1 + accuracy, accuracy, 10.0, 100.0]
            for epoch, accuracy in enumerate(accuracies)
        ]
        lines = [COLUMNS, *(map(str, row) for row in rows)]
        (directory / "metrics.csv").write_text("".join(",".join(line) + "\n" for line in lines))
        (directory / "environment.json").write_text(json.dumps({"parameters": parameters}))
        (directory / "training.log").write_text(LOG_END if finished else "")
        (directory / "model.pt").write_bytes(b"")

    return add


@pytest.fixture
def runs(add_run, tmp_path):
    """Three runs: `a` finished, `b` better and interrupted, `c` stopped before its first epoch."""
    add_run("a", [0.5], lr=0.125, epochs=2)
    add_run("b", [0.75], "val", lr=0.125, epochs=2, finished=False, dataset="folder")
    add_run("c", [], lr=0.125, epochs=2, finished=False)
    return tmp_path / "runs"


@pytest.fixture
def compare(quick_cli):
    """Return the document of a comparison."""
    return lambda *names: json.loads(quick_cli("runs", "compare", *names, "--json").stdout)


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_every_run_is_a_line_with_its_state_data_set_and_split(quick_cli, runs, columns):
    heading, *lines = quick_cli("runs", columns=columns).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["a", "b", "c"]
    assert [line.split()[-1] for line in lines] == ["finished", "interrupted", "interrupted"]
    assert max(map(len, [heading, *lines])) <= columns
    assert ("recipe" in heading) == (columns == 120)
    sources = ["  synthetic ", "  folder "] if columns >= 80 else [" ", " "]
    assert f"50.00% test{sources[0]}" in lines[0]
    assert f"75.00% val{sources[1]}" in lines[1].replace("val   ", "val  ")
    assert " – " in lines[2]


def test_a_loss_that_is_not_a_number_is_null_in_json(quick_cli, add_run):
    add_run("a", [float("nan")])
    assert json.loads(quick_cli("runs", "--json").stdout)[0]["eval"]["loss"] is None


@pytest.mark.skipif(os.name == "nt", reason="needs permissions")
def test_an_unreadable_folder_hides_no_other_run(quick_cli, runs):
    for folder in (runs.parent, runs, *runs.iterdir()):
        folder.chmod(0o755)
    (runs / "b").chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        done = quick_cli("runs")
    finally:
        os.seteuid(user)
        (runs / "b").chmod(0o755)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:3]] == ["a", "c"]
    assert done.stdout.splitlines()[3] == "left out: runs/b cannot be read: Permission denied"


def test_what_is_said_before_the_name_of_a_subcommand_counts_too(quick_cli, runs):
    runs.rename(runs.with_name("mine"))
    for words in (["show", "b"], ["compare", "a", "b"]):
        after = quick_cli("runs", *words, "--output-dir", "mine", "--json")
        before = quick_cli("runs", "--output-dir", "mine", "--json", *words)
        assert after.returncode == 0, after.stderr
        assert before == after


def test_the_list_is_sorted_by_each_of_its_columns(quick_cli, runs):
    columns = quick_cli("runs", columns=120).stdout.splitlines()[0].replace("data set", "dataset")
    for column in ("data set", *columns.split()):
        assert quick_cli("runs", "--sort", column).returncode == 0
    for column, names in (("accuracy", "bac"), ("eval_accuracy", "bac"), ("dataset", "bac")):
        done = quick_cli("runs", "--sort", column, "--json")
        assert "".join(run["name"] for run in json.loads(done.stdout)) == names


def test_one_run_is_shown_by_name_and_by_path(quick_cli, runs):
    done = quick_cli("runs", "show", "a")
    assert done.stdout == quick_cli("runs", "show", "runs/a").stdout
    assert "accuracy 50.00%, loss 1.5000 (epoch 0)" in done.stdout
    assert "settings   lr 0.125\n" in done.stdout
    document = json.loads(quick_cli("runs", "show", "a", "--json").stdout)
    assert document["settings"]["lr"] == 0.125
    assert document["changed"] == {"dataset": "synthetic", "epochs": 2, "lr": 0.125}
    sizes = {each["name"]: each["size"] for each in document["files"]}
    names = ["environment.json", "metrics.csv", "model.pt", "settings.toml", "training.log"]
    assert list(sizes) == names
    assert sizes["metrics.csv"] == (runs / "a" / "metrics.csv").stat().st_size
    assert document["history"][0]["eval"] == {"split": "test", "accuracy": 0.5, "loss": 1.5}


def test_runs_that_differ_in_their_seed_alone_are_one_line_with_mean_and_deviation(
    quick_cli, add_run, compare
):
    for seed, accuracy in enumerate([0.5, 0.53, 0.56]):
        add_run(f"s{seed}", [0.1, 0.2, accuracy], seed=seed)
    add_run("other", [0.1, 0.2, 0.6], lr=0.1)
    done = quick_cli("runs", "compare", "s0", "other", "s1", "s2")
    assert done.stdout.splitlines() == [
        "runs        n       accuracy             loss  seconds",
        "s0, s1, s2  3  53.00 ± 3.00%  1.5300 ± 0.0300   30 ± 0",
        "other       1         60.00%           1.6000       30",
        "in all of them: data set synthetic test, epochs 3/3, parameters 197,922",
        "",
        "setting  s0, s1, s2  other",
        "lr       0.2         0.1  ",
        "seed     0, 1, 2     0    ",
    ]
    document = compare("s0", "other", "s1", "s2")
    assert document["differing"] == ["lr", "seed"]
    first, second = document["lines"]
    assert (first["n"], second["n"]) == (3, 1)
    assert (first["settings"], second["settings"]) == ({"lr": 0.2}, {"lr": 0.1})
    assert first["eval"]["accuracy"] == pytest.approx(0.53)
    assert first["deviation"]["accuracy"] == pytest.approx(0.03)
    assert second["deviation"] is None
    seeds = [(run["name"], run["seed"]) for run in first["runs"]]
    assert seeds == [("s0", 0), ("s1", 1), ("s2", 2)]
    assert document["warnings"] == []


@pytest.mark.parametrize(
    ("accuracies", "more"),
    [
        ([0.1, 0.2, 0.5], {"seed": 0}),
        ([0.1, 0.2], {"seed": 1}),
        ([0.1, 0.2, 0.5], {"seed": 1, "shift": 3}),
        ([0.1, 0.2, 0.5], {"seed": 1, "parameters": 5}),
    ],
    ids=["the same seed", "fewer epochs", "another setting", "another network"],
)
def test_runs_that_differ_otherwise_are_lines_of_their_own(add_run, compare, accuracies, more):
    add_run("a", [0.1, 0.2, 0.5])
    add_run("b", accuracies, **more)
    assert [line["n"] for line in compare("a", "b")["lines"]] == [1, 1]


def test_arguments_of_a_network_are_a_list_and_none_of_them_a_dash(quick_cli, add_run):
    for name, arguments in (("a", ()), ("b", ("width=8", "depth=2"))):
        add_run(name, [0.5], model="net.py:Net", model_arg=arguments, input_size="48x64")
    text = quick_cli("runs", "compare", "a", "b").stdout
    (row,) = [line for line in text.splitlines() if "model_arg" in line]
    assert row.split("  ")[-2:] == ["–", "width=8, depth=2"]
    text = quick_cli("runs", "show", "b").stdout
    assert "input_size 48x64" in text
    assert "model_arg width=8, depth=2" in text


@pytest.mark.parametrize(
    ("split", "more", "differing"),
    [
        ("test", {"dataset": "cifar10"}, "dataset"),
        ("val", {"val_size": 10}, "split, val_size"),
        ("test", {"limit_eval": 5}, "limit_eval"),
        ("test", {"dataset": "folder", "data_dir": "x"}, "dataset, data_dir"),
        ("test", {"dataset": "folder", "test_size": 0.5}, "dataset, test_size"),
        ("test", {"data_dir": "elsewhere"}, ""),  # synthetic images come from no folder
    ],
)
def test_figures_of_other_images_are_compared_with_a_warning(
    quick_cli, add_run, split, more, differing
):
    add_run("a", [0.5])
    add_run("b", [0.6], split, **more)
    warning = f"the figures are not of the same images: the runs differ in {differing}"
    done = quick_cli("runs", "compare", "a", "b", "--json")
    assert json.loads(done.stdout)["warnings"] == ([warning] if differing else [])
    assert done.stderr == (f"warning: {warning}\n" if differing else "")
    images = f"{more.get('dataset', 'synthetic')} {split}"
    if images != "synthetic test":
        assert f"{images} " in quick_cli("runs", "compare", "a", "b").stdout


def test_a_run_without_an_epoch_has_dashes_and_no_curve(quick_cli, add_run):
    add_run("a", [0.5, 0.6, 0.7])
    add_run("b", [])
    add_run("c", [], lr=0.1)
    done = quick_cli("runs", "compare", "a", "b")
    assert done.stdout.splitlines()[2].split() == ["b", "1", "–", "–", "synthetic", "0/3", "–"]
    done = quick_cli("runs", "compare", "b", "c", "--plot", "x.png")
    message = "cifar-cnn: no run has finished an epoch: there are no curves to draw\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_runs_of_one_name_are_told_apart_by_their_path(quick_cli, add_run):
    add_run("a", [0.5])
    add_run("elsewhere/a", [0.6], lr=0.1)
    lines = quick_cli("runs", "compare", "a", "runs/elsewhere/a").stdout.splitlines()[1:3]
    names = [line.split()[0].replace("\\", "/") for line in lines]
    assert names == ["runs/a", "runs/elsewhere/a"]


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("count", [2, 12])
def test_the_tables_of_a_comparison_fit_the_screen(quick_cli, add_run, columns, count):
    names = [f"20261125-14532{index:x}-tuned" for index in range(count)]
    for index, name in enumerate(names):
        add_run(name, [0.5], lr=(1 + index) / 1000, shift=index)
    done = quick_cli("runs", "compare", *names, columns=columns)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("in all of them")]
    assert max(map(len, lines)) <= columns
    assert "…" not in done.stdout
    assert done.stdout.count("0.002") == 1
