import io
import json

import pytest
from PIL import Image

from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.history import COLUMNS, saved_line


@pytest.fixture
def add_run(tmp_path):
    """Write a run of three epochs with these accuracies and settings."""

    def add(name, accuracies, split="test", parameters=197_922, **settings):
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
        (directory / "training.log").write_text(saved_line("model.pt"))
        (directory / "model.pt").write_bytes(b"")

    return add


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
def test_the_tables_fit_the_screen(quick_cli, add_run, columns, count):
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
def test_a_mistake_is_one_line_and_nothing_is_written(
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
