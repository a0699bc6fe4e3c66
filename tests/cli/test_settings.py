import json

import pytest

from cifar_cnn.recipes import RECIPES
from cifar_cnn.settings import Settings, resolve_settings


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


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_every_setting_is_a_row_that_fits_the_screen(quick_cli, columns):
    lines = quick_cli("settings", columns=columns).stdout.splitlines()
    assert max(map(len, lines)) <= columns
    if columns == 120:
        shown = {line.split(" ")[0] for line in lines}
        assert set(Settings.model_fields) - {"recipe"} <= shown


def test_a_setting_that_is_not_given_is_a_dash(quick_cli):
    lines = quick_cli("settings").stdout.splitlines()
    (row,) = [line for line in lines if line.startswith("model_arg")]
    assert row.split()[1:4] == ["–"] * 3
