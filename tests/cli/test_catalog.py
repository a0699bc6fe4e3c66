"""`cifar-cnn models` and `cifar-cnn settings`."""

import json
import re
from pathlib import Path

import pytest

from cifar_cnn.models import BUILT_IN
from cifar_cnn.recipes import RECIPES
from cifar_cnn.settings import resolve_settings
from cifar_cnn.settings.fields import MODELS

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
    assert BUILT_IN.keys() == {*MODELS}
    assert {network.recipe for network in BUILT_IN.values()} <= {*RECIPES}


def test_what_is_reached_is_what_the_readme_says():
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    for network in BUILT_IN.values():
        for epochs, accuracy, n in network.reached:
            figures = rf"\b{epochs}\b.*\| {n} \| {100 * accuracy:.2f}\b"
            assert any(re.search(figures, row) for row in rows), figures


def test_the_schema_accepts_what_print_config_prints_and_refuses_typos(quick_cli):
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema, of the extra `test`")
    schema = json.loads(quick_cli("settings", "--schema").stdout)
    validator = jsonschema.Draft202012Validator(schema)
    for recipe in RECIPES:
        document = resolve_settings({"recipe": recipe}).model_dump(mode="json")
        validator.validate(document)
    for size in (32, "32x48", [32, 48]):
        validator.validate({"input_size": size})
    for wrong in ({"epoch": 3}, {"epochs": 0}, {"scheduler": "onecyle"}):
        assert not validator.is_valid(wrong)
