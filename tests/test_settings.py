import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cifar_cnn.errors import SettingsError
from cifar_cnn.recipes import RECIPE_FOLDER, RECIPES
from cifar_cnn.settings import Settings, resolve_settings, validate

SCHEMA = Settings.model_json_schema()["properties"]
NOT_IN_SCHEMA = {
    "recipe": st.sampled_from(RECIPES),
    "model": st.sampled_from(["baseline", "my.nets:Net", "nets/my net.py:Net"]),
    "model_arg": st.just(()) | st.just(("width=8", "name = a 'b'", "sizes=[1, 2]")),
    "input_size": st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
    "data_dir": st.sampled_from(["data", "my images"]),
    "momentum": st.floats(0.01, 0.99),  # 0 does not go with nesterov
    "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:3", "mps"]),
}
INVALID = {"model": 3, "model_arg": ["width"], "input_size": "32x", "data_dir": 3, "device": "gpu"}


def valid_values(about):
    if "anyOf" in about:
        return st.none() | valid_values(about["anyOf"][0])
    if "enum" in about:
        return st.sampled_from(about["enum"])
    if about["type"] == "boolean":
        return st.booleans()
    low = about.get("minimum", about.get("exclusiveMinimum"))
    high = about.get("maximum", about.get("exclusiveMaximum", 10**6))
    if about["type"] == "integer":
        return st.integers(low, high - ("exclusiveMaximum" in about))
    return st.floats(
        low,
        high,
        exclude_min="exclusiveMinimum" in about,
        exclude_max="exclusiveMaximum" in about,
    )


def invalid_value(about):
    if "anyOf" in about:
        return invalid_value(about["anyOf"][0])
    if "enum" in about or about["type"] == "boolean":
        return "perhaps"
    return about["exclusiveMinimum"] if "exclusiveMinimum" in about else about["minimum"] - 1


VALID = {name: valid_values(SCHEMA[name]) for name in SCHEMA.keys() - NOT_IN_SCHEMA} | NOT_IN_SCHEMA


@given(st.fixed_dictionaries({}, optional=VALID))
def test_settings_survive_the_way_through_toml(values):
    settings = resolve_settings(values)
    assert validate(tomllib.loads(settings.to_toml())) == settings


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - {"recipe"}))
def test_every_invalid_value_is_refused_with_its_name(name):
    with pytest.raises(SettingsError, match=f"setting {name} = ") as caught:
        resolve_settings({name: INVALID.get(name) or invalid_value(SCHEMA[name])})
    assert "\n" not in str(caught.value)


@pytest.fixture
def config(tmp_path):
    """Write a config file, and return its path."""

    def write(text):
        (tmp_path / "run.toml").write_text(text)
        return tmp_path / "run.toml"

    return write


def test_overrides_beat_config_beats_recipe_beats_defaults(config):
    file = config('recipe = "reference"\nlr = 0.5\nbatch_size = 7\n')
    settings = resolve_settings({"lr": 0.25}, file)
    assert (settings.lr, settings.batch_size) == (0.25, 7)
    assert (settings.recipe, settings.dropout, settings.epochs) == ("reference", 0.02, 20)
    assert (resolve_settings().recipe, resolve_settings().epochs) == ("tuned", 20)
    file = config('recipe = "reference"\n')
    assert resolve_settings({"recipe": "tuned"}, file) == resolve_settings({"recipe": "tuned"})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "cifar10"),
        ({"dataset": "synthetic"}, "cifar10"),
        ({"dataset": "folder"}, "dataset"),
        ({"dataset": "folder", "recipe": "best"}, "dataset"),
        ({"dataset": "folder", "recipe": "reference"}, "cifar10"),
        ({"dataset": "folder", "normalization": "cifar10"}, "cifar10"),
        ({"dataset": "synthetic", "normalization": "dataset"}, "dataset"),
    ],
    ids=str,
)
def test_folders_have_their_own_normalization_unless_something_says_how(given, expected):
    settings = resolve_settings(given)
    assert settings.normalization == expected
    assert f'normalization = "{expected}"' in settings.to_toml()


def test_the_reference_recipe_is_the_reference_readme():
    stated = {
        "batch_size": 64,
        "lr": 0.01,
        "momentum": 0.9,
        "nesterov": False,
        "deterministic": False,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "dropout": 0.02,
        "scheduler": "constant",
        "flip": 0.5,
        "shift": 0,
        "affine": 0.5,
        "cutout": 0.5,
        "cutout_size": 16,
        "precision": "fp32",
    }
    assert resolve_settings({"recipe": "reference"}).model_dump(include=set(stated)) == stated


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            'model_arg = "width=8"',
            ": setting model_arg = 'width=8' is invalid: it has to be a list",
        ),
        ("lr = -1", ": setting lr = -1 is invalid: it has to be above 0"),
        ("epochz = 3", ": unknown setting 'epochz' (did you mean 'epochs'?)"),
        ('recipe = "refrence"', ": unknown recipe 'refrence' (did you mean 'reference'?)"),
        ("lr = ", " is not valid TOML"),
        (b"\xff\xfe", " is not valid TOML"),
        (None, " cannot be read: No such file"),
    ],
)
def test_a_mistake_in_a_config_file_names_the_file(tmp_path, content, problem):
    file = tmp_path / "run.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError) as caught:
        resolve_settings({}, file)
    assert str(caught.value).startswith(f"config file {file}{problem}")


def test_a_config_file_with_a_byte_order_mark_is_read(config):
    assert resolve_settings({}, config("\ufefflr = 0.5\n")).lr == 0.5


def test_a_config_file_may_need_what_the_command_line_brings(config):
    file = config("nesterov = true\nmomentum = 0\n")
    assert resolve_settings({"momentum": 0.5}, file).momentum == 0.5
    with pytest.raises(SettingsError, match="nesterov needs a momentum above 0"):
        resolve_settings({}, file)


def test_settings_that_do_not_go_together_are_never_built():
    with pytest.raises(ValidationError, match="nesterov needs a momentum above 0"):
        Settings(optimizer="sgd", nesterov=True, momentum=0)
    with pytest.raises(SettingsError, match=r"^nesterov needs a momentum above 0"):
        validate({"optimizer": "sgd", "nesterov": True, "momentum": 0})


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("input_size", 0, "it has to be at least 1"),
        ("input_size", "foo", "it has to be N or HxW (height×width)"),
        ("input_size", [1, 2, 3], "it has to be N or HxW (height×width)"),
        ("input_size", 4097, "it has to be at most 4096"),
        ("lr", "fast", "it has to be a number"),
        ("lr", float("nan"), "it has to be a finite number"),
        ("epochs", 2.5, "it has to be a whole number"),
        ("nesterov", "perhaps", "it has to be yes or no (in TOML, true or false)"),
        ("model", 3, "it has to be text"),
        ("data_dir", 3, "it has to be a path"),
        pytest.param("epochs", "9" * 5000, "it has to be a smaller number", id="long"),
        ("model_arg", ["integer"], "'integer' is not NAME=VALUE, as width=8 is"),
        ("seed", 2**63, "it has to be below 9223372036854775808"),
        (
            "dataset",
            "fold",
            "it has to be 'cifar10', 'folder' or 'synthetic' (did you mean 'folder'?)",
        ),
    ],
)
def test_what_a_value_has_to_be_is_said_once_in_plain_words(name, value, reason):
    with pytest.raises(SettingsError) as caught:
        resolve_settings({name: value})
    assert str(caught.value) == f"setting {name} = {value!r} is invalid: {reason}"


@pytest.mark.parametrize(
    ("given", "size"), [("48", (48, 48)), ("24x48", (24, 48)), (40, (40, 40)), ([8, 9], (8, 9))]
)
def test_an_input_size_is_one_side_or_height_and_width(given, size):
    assert resolve_settings({"input_size": given, "shift": 0}).input_size == size


@pytest.mark.parametrize(
    ("model", "model_arg", "cutout"),
    [
        ("compact", ["width=0.59"], 0),
        ("compact", ["width=0.6"], 1),
        ("compact", ["width=x"], 1),  # refused where the network is built
        ("net.py:Net", ["width=0.3"], 1),
    ],
)
def test_best_cuts_out_nothing_for_narrow_members_of_compact(model, model_arg, cutout):
    values = {"recipe": "best", "epochs": 30, "model": model, "model_arg": model_arg}
    assert resolve_settings(values).cutout == cutout
    assert resolve_settings({**values, "cutout": 0.5}).cutout == 0.5


@pytest.mark.parametrize(("epochs", "cutout"), [(5, 0), (29, 0), (30, 1), (200, 1)])
def test_best_cuts_out_squares_in_runs_of_30_epochs_and_more(epochs, cutout, config):
    assert resolve_settings({"recipe": "best", "epochs": epochs}).cutout == cutout
    for written in (epochs, float(epochs), f'"{epochs}"'):
        file = config(f'recipe = "best"\nepochs = {written}\n')
        assert resolve_settings(config=file).cutout == cutout
    assert resolve_settings({"cutout": 0.5}, config=file).cutout == 0.5
    default = Settings.model_fields["epochs"].default
    of_default_length = resolve_settings({"recipe": "best", "epochs": default})
    assert resolve_settings({"recipe": "best"}) == of_default_length


def test_a_setting_of_the_default_recipe_does_not_leak_into_another(tmp_path, monkeypatch):
    for name in RECIPES:
        text = (RECIPE_FOLDER / f"{name}.toml").read_text()
        (tmp_path / f"{name}.toml").write_text(("mixup = 0.25\n" if name == "tuned" else "") + text)
    monkeypatch.setattr("cifar_cnn.recipes.RECIPE_FOLDER", tmp_path)
    assert resolve_settings({}).mixup == 0.25
    assert [resolve_settings({"recipe": name}).mixup for name in ("reference", "best")] == [0, 0]


def test_a_data_folder_may_begin_with_the_users_home(monkeypatch, tmp_path, config):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_settings({}, config('data_dir = "~/x"')).data_dir == tmp_path / "x"
    assert resolve_settings({"data_dir": "~/x"}).data_dir == tmp_path / "x"


def test_a_data_folder_whose_name_is_not_utf8_is_refused_in_one_line():
    with pytest.raises(SettingsError, match="not UTF-8: rename the folder") as caught:
        resolve_settings({"data_dir": Path(os.fsdecode(b"b\xff"))})
    assert "\n" not in str(caught.value)
