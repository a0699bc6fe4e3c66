"""`cifar-cnn runs`: the list, one run, and several beside one another."""

import io
import json
import os

import pytest
from PIL import Image

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
    add_run("b", [0.75], lr=0.125, epochs=2, finished=False)
    add_run("c", [], lr=0.125, epochs=2, finished=False)
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


def test_a_loss_that_is_not_a_number_is_null_in_json(quick_cli, add_run):
    add_run("a", [float("nan")])
    assert json.loads(quick_cli("runs", "--json").stdout)[0]["eval"]["loss"] is None


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
    assert "accuracy 75.00%, loss 1.7500 (epoch 0)" in done.stdout
    assert "settings   lr 0.125\n" in done.stdout
    document = json.loads(quick_cli("runs", "show", "b", "--json").stdout)
    assert document["settings"]["lr"] == 0.125
    assert document["changed"] == {"dataset": "synthetic", "epochs": 2, "lr": 0.125}
    sizes = {each["name"]: each["size"] for each in document["files"]}
    assert list(sizes) == [
        "environment.json",
        "metrics.csv",
        "model.pt",
        "settings.toml",
        "training.log",
    ]
    assert sizes["metrics.csv"] == (runs / "b" / "metrics.csv").stat().st_size
    assert document["settings"]["input_size"] == [3, 32, 32]
    assert document["history"][0]["eval"] == {"split": "test", "accuracy": 0.75, "loss": 1.75}


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


def test_runs_that_differ_in_their_seed_alone_are_one_line_with_mean_and_deviation(
    quick_cli, add_run
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
    document = json.loads(quick_cli("runs", "compare", "s0", "other", "s1", "s2", "--json").stdout)
    assert document["differing"] == ["lr", "seed"]
    first, second = document["lines"]
    assert (first["n"], second["n"]) == (3, 1)
    assert (first["settings"], second["settings"]) == ({"lr": 0.2}, {"lr": 0.1})
    assert first["eval"]["accuracy"] == pytest.approx(0.53)
    assert first["deviation"]["accuracy"] == pytest.approx(0.03)
    assert second["deviation"] is None
    assert [(run["name"], run["seed"]) for run in first["runs"]] == [
        ("s0", 0),
        ("s1", 1),
        ("s2", 2),
    ]
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
def test_runs_that_differ_otherwise_are_lines_of_their_own(quick_cli, add_run, accuracies, more):
    add_run("a", [0.1, 0.2, 0.5])
    add_run("b", accuracies, **more)
    document = json.loads(quick_cli("runs", "compare", "a", "b", "--json").stdout)
    assert [line["n"] for line in document["lines"]] == [1, 1]


def test_arguments_of_a_network_are_a_list_and_none_of_them_a_dash(quick_cli, add_run):
    for name, given in (("a", ()), ("b", ("width=8", "depth=2"))):
        add_run(name, [0.1, 0.2, 0.5], model="net.py:Net", model_arg=given, input_size="48x64")
    shown = quick_cli("runs", "compare", "a", "b", columns=80).stdout
    assert next(x for x in shown.splitlines() if "model_arg" in x).split("  ")[-2:] == [
        "–",
        "width=8, depth=2",
    ]
    shown = quick_cli("runs", "show", "b").stdout
    assert "input_size 48x64" in shown
    assert "model_arg width=8, depth=2" in shown


@pytest.mark.parametrize(
    ("split", "more", "differing"),
    [
        ("test", {"dataset": "cifar10"}, "dataset"),
        ("val", {"val_size": 10}, "split, val_size"),
        ("test", {"limit_eval": 5}, "limit_eval"),
        ("test", {"dataset": "folder", "data_dir": "x"}, "dataset, data_dir"),
        ("test", {"dataset": "folder", "test_size": 0.5}, "dataset, test_size"),
    ],
)
def test_figures_of_other_images_are_compared_with_a_warning(
    quick_cli, add_run, split, more, differing
):
    add_run("a", [0.5])
    add_run("b", [0.6], split, **more)
    warning = f"the figures are not of the same images: the runs differ in {differing}"
    done = quick_cli("runs", "compare", "a", "b", "--json")
    assert json.loads(done.stdout)["warnings"] == [warning]
    assert done.stderr == f"warning: {warning}\n"
    dataset = more.get("dataset", "synthetic")
    if f"{dataset} {split}" != "synthetic test":
        assert f"{dataset} {split} " in quick_cli("runs", "compare", "a", "b").stdout


def test_the_folder_of_drawn_images_is_no_difference_of_images(quick_cli, add_run):
    add_run("a", [0.5])
    add_run("b", [0.6], data_dir="elsewhere")
    assert json.loads(quick_cli("runs", "compare", "a", "b", "--json").stdout)["warnings"] == []


def test_a_run_without_an_epoch_has_dashes(quick_cli, add_run):
    add_run("a", [0.5, 0.6, 0.7])
    add_run("b", [])
    done = quick_cli("runs", "compare", "a", "b")
    assert done.stdout.splitlines()[2].split() == ["b", "1", "–", "–", "synthetic", "0/3", "–"]


def test_runs_of_one_name_are_told_apart_by_their_path(quick_cli, add_run, tmp_path):
    add_run("a", [0.5])
    add_run("elsewhere/a", [0.6], lr=0.1)
    done = quick_cli("runs", "compare", "a", "runs/elsewhere/a")
    assert [line.split()[0].replace("\\", "/") for line in done.stdout.splitlines()[1:3]] == [
        "runs/a",
        "runs/elsewhere/a",
    ]


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("count", [2, 12])
def test_the_tables_of_a_comparison_fit_the_screen(quick_cli, add_run, columns, count):
    for index in range(count):
        add_run(f"20261125-14532{index:x}-tuned", [0.5], lr=(1 + index) / 1000, shift=index)
    names = [f"20261125-14532{index:x}-tuned" for index in range(count)]
    done = quick_cli("runs", "compare", *names, columns=columns)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("in all of them")]
    assert max(map(len, lines)) <= columns
    assert "…" not in done.stdout
    assert done.stdout.count("0.002") == 1


def test_the_curves_are_one_picture(quick_cli, add_run, tmp_path):
    add_run("a", [0.5, 0.6])
    add_run("b", [0.5, 0.7], lr=0.1)
    done = quick_cli("runs", "compare", "a", "b", "--plot", "curves.png")
    assert done.stdout.splitlines()[-1] == "saved curves.png"
    picture = Image.open(io.BytesIO((tmp_path / "curves.png").read_bytes()))
    assert (picture.format, picture.width > 900) == ("PNG", True)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["a"], 2, "there is nothing to compare in one run: name two or more"),
        (["a", "runs/a"], 2, "there is nothing to compare in one run: name two or more"),
        (["a", "aa"], 1, "there is no run runs/aa (did you mean 'a'?)"),
        (["a", "broken"], 1,
         "run directory runs/broken is not of this version: metrics.csv differs"),
        (["a", "odd"], 1,
         "run directory runs/odd is not of this version: environment.json differs"),
        (["a", "."], 1, ". is not a run directory: it lacks settings.toml or metrics.csv"),
        (["a", "b", "--plot", "none/x.png"], 1,
         "none/x.png cannot be written: there is no folder none"),
        (["b", "c", "--plot", "x.png"], 1,
         "no run has finished an epoch: there are no curves to draw"),
        (["a", "b", "--plot", "x.jpg"], 2,
         "--plot writes a PNG picture: x.jpg has to end in .png"),
        ([], 2, "Missing argument 'RUN...'; see cifar-cnn runs compare --help"),
        (["a", "b", "--plt", "x"], 2,
         "No such option: --plt. Did you mean --plot? see cifar-cnn runs compare --help"),
    ],
)  # fmt: skip
def test_a_mistake_of_compare_is_one_line_and_nothing_is_written(
    quick_cli, add_run, tmp_path, arguments, status, message
):
    add_run("a", [0.5])
    add_run("b", [])
    add_run("c", [], lr=0.1)
    add_run("broken", [0.5])
    add_run("odd", [0.5], parameters="many")
    (tmp_path / "runs" / "broken" / "metrics.csv").write_text("epoch,step\n0,\n")
    done = quick_cli("runs", "compare", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.replace("\\", "/") == f"cifar-cnn: {message}\n"
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]
