"""`cifar-cnn models`: the built-in networks and what they reach."""

import json
import re
from pathlib import Path

import pytest

from cifar_cnn.models import BUILT_IN
from cifar_cnn.recipes import RECIPES

README = Path(__file__).parents[2] / "README.md"


def test_the_document_has_what_the_analysis_finds_and_what_was_reached(quick_cli):
    done = quick_cli("models", "--json")
    assert done.returncode == 0
    baseline, compact = json.loads(done.stdout)
    assert (baseline["model"], baseline["parameters"]) == ("baseline", 197_922)
    assert baseline["mult_adds"] == 13_401_344
    assert baseline["features"]["receptive_field"] == [25, 25]
    assert baseline["final"]["receptive_field"] == [49, 49]
    assert (baseline["recipe"], compact["recipe"]) == ("tuned", "best")
    assert compact["reached"][0] == {"epochs": 10, "accuracy": 0.8808, "n": 3}


def test_each_built_in_network_says_how_it_is_used():
    assert {network.recipe for network in BUILT_IN.values()} <= {*RECIPES}


def test_what_is_reached_is_what_the_readme_says():
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    for network in BUILT_IN.values():
        for epochs, accuracy, n in network.reached:
            figures = rf"\b{epochs}\b.*\| {n} \| {100 * accuracy:.2f}\b"
            assert any(re.search(figures, row) for row in rows), figures


@pytest.mark.parametrize("columns", [40, 80])
def test_people_read_it_at_any_width(quick_cli, columns):
    done = quick_cli("models", columns=columns)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines) <= columns
    for whole in ("baseline", "197,922", "13.40 M", "25×25 map", "49×49 output", "tuned", "best"):
        assert any(whole in line for line in lines)
    for network in BUILT_IN.values():
        for epochs, accuracy, n in network.reached:
            assert any(f"{accuracy:.2%}, {epochs} epochs, n = {n}" in s for s in lines)


def test_it_takes_no_network(quick_cli):
    done = quick_cli("models", "net.py")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
