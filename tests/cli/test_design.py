import json
import shlex

import pytest


def test_its_train_command_trains_the_network_it_names(quick_cli, cli, tmp_path):
    done = quick_cli("design", "--max-params", "15000", "--input-size", "24")
    assert done.returncode == 0
    command = done.stdout.splitlines()[-1].partition("cifar-cnn ")[2]
    flags = "--dataset synthetic --limit-train 100 --limit-eval 100 --epochs 1 --name a --no-report"
    trained = cli(*shlex.split(command), *flags.split())
    assert trained.returncode == 0, trained.stderr
    summary = json.loads(cli("summary", "a", "--json").stdout)
    found = json.loads(
        quick_cli("design", *["--max-params", "15000", "--input-size", "24", "--json"]).stdout
    )
    assert summary["totals"] == found["summary"]["totals"]
    assert summary["input_size"] == [3, 24, 24]


def test_the_document(quick_cli):
    document = json.loads(quick_cli("design", "--json", "--classes", "4").stdout)
    assert [*document] == ["model", "model_arg", "summary"]
    flags = ("--model", document["model"], "--model-arg", document["model_arg"][0])
    summary = json.loads(quick_cli("summary", "--json", *flags).stdout)
    assert [*summary] == [*document["summary"]]


def test_limits_of_pyproject_are_taken_and_flags_win(quick_cli, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.cifar-cnn.budget]\nmax-params = 15000\n")
    of_table = quick_cli("design").stdout
    assert "width=0.21" in of_table
    assert "(limits of pyproject.toml)" in of_table
    assert "width=0.5 " in quick_cli("design", "--max-params", "50000").stdout


def test_the_nearest_miss_is_named_with_exit_code_1(quick_cli):
    done = quick_cli("design", "--max-params", "5000")
    assert done.returncode == 1
    assert "smallest member, width=0.2: 9,240 parameters" in done.stdout
    document = json.loads(quick_cli("design", "--max-params", "5000", "--json").stdout)
    assert document["summary"]["budget"]["passed"] is False


@pytest.mark.parametrize("flags", ["--input-size 8", "--require lstm", "--max-params 0"])
def test_bad_input_is_one_line(quick_cli, flags):
    done = quick_cli("design", *flags.split())
    assert done.returncode in {1, 2}
    assert len(done.stderr.splitlines()) == 1
