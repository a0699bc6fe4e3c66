import pytest
from torch import nn

from cifar_cnn import Budget, read_budget, summarize
from cifar_cnn.errors import SettingsError


def verdicts(model, size=(32, 32), **budget):
    summary = summarize(model, size, budget=Budget(**budget))
    return {item.name: item for item in summary.budget.requirements}


def test_baseline_meets_the_brief_and_each_verdict_names_the_layer():
    summary = summarize("baseline", budget=Budget())
    assert summary.budget.passed
    found = {item.name: (item.limit, item.actual) for item in summary.budget.requirements}
    assert found == {
        "max-params": (200_000, 197_922),
        "min-rf": (44, 49),
        "require:depthwise-separable": (1, 1),
        "require:dilated": (1, 1),
        "require:gap": (1, 1),
    }
    details = {item.name: item.detail for item in summary.budget.requirements}
    assert "convblock4.0" in details["max-params"]
    assert "convblock4.3" in details["min-rf"]
    assert (
        "convblock2.0.depthwise + convblock2.0.pointwise" in details["require:depthwise-separable"]
    )
    assert details["require:dilated"] == "convblock3.0"
    assert details["require:gap"] == "gap"


@pytest.mark.parametrize(
    ("limits", "broken"),
    [
        ({"max_params": 197_922}, "max-params"),
        ({"min_rf": 49}, "min-rf"),
        ({"min_rf_features": 25}, "min-rf-features"),
        ({"max_mult_adds": 13_401_343}, "max-mult-adds"),
    ],
)
def test_limits_are_strict_for_parameters_and_field_and_inclusive_for_mult_adds(limits, broken):
    assert not verdicts("baseline", **limits)[broken].passed
    ((name, limit),) = limits.items()
    just_enough = limit - 1 if name.startswith("min_rf") else limit + 1
    assert verdicts("baseline", **{name: just_enough})[broken].passed


def test_the_smaller_axis_of_the_field_is_held_against_the_limit():
    item = verdicts(nn.Conv2d(3, 4, (9, 3)), min_rf=3, require=())["min-rf"]
    assert (item.actual, item.passed) == (3, False)


def test_the_table_in_pyproject_sets_limits_and_the_command_line_wins(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[tool.cifar-cnn.budget]\nmax-params = 5\nmin-rf = 6\nmax-mult-adds = 7\nrequire = ["gap"]'
    )
    assert read_budget(folder=tmp_path) == Budget(
        max_params=5, min_rf=6, max_mult_adds=7, require=("gap",)
    )
    assert read_budget({"min_rf": 8, "require": ["dilated"]}, tmp_path) == Budget(
        max_params=5, min_rf=8, max_mult_adds=7, require=("dilated",)
    )


def test_the_table_is_looked_for_upwards_and_the_verdict_names_its_file(tmp_path, monkeypatch):
    inner = tmp_path / "nets" / "mine"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.cifar-cnn.budget]\nmin-rf = 6\n")
    (tmp_path / "nets" / "pyproject.toml").write_text('[project]\nname = "nets"\n')
    monkeypatch.chdir(inner)
    budget = read_budget()
    assert (budget.min_rf, budget.file) == (6, "../../pyproject.toml")
    verdict = summarize("baseline", budget=budget).budget
    assert verdict.file == "../../pyproject.toml"
    (inner / "pyproject.toml").write_text("[tool.cifar-cnn.budget]\n")
    assert read_budget() == Budget()
    assert read_budget().file == "pyproject.toml"
    (inner / "pyproject.toml").unlink()
    (tmp_path / "nets" / "pyproject.toml").write_text("[tool.cifar-cnn.budget]\nmin_rf = 6\n")
    with pytest.raises(SettingsError, match=r"^\.\./pyproject\.toml: unknown budget item 'min_rf'"):
        read_budget()


def test_without_a_table_the_brief_applies_and_no_file_is_named(tmp_path):
    assert read_budget(folder=tmp_path) == Budget()
    assert read_budget(folder=tmp_path).file is None
    assert summarize("baseline", budget=Budget()).budget.file is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"')
    assert read_budget(folder=tmp_path) == Budget()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('file = "x"', "unknown budget item 'file'"),
        ("max-param = 5", "did you mean 'max-params'"),
        ("max_params = 5", "did you mean 'max-params'"),
        ('require = ["dilate"]', "did you mean 'dilated'"),
        ('max-params = "many"', "max-params"),
        ("min-rf = -1", "min-rf"),
        ("min-rf = ", "not valid TOML"),
    ],
)
def test_a_wrong_item_is_named(tmp_path, text, message):
    (tmp_path / "pyproject.toml").write_text(f"[tool.cifar-cnn.budget]\n{text}")
    with pytest.raises(SettingsError, match=message):
        read_budget(folder=tmp_path)
