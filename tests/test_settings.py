import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_cnn.errors import SettingsError
from cifar_cnn.recipes import RECIPE_FOLDER, RECIPES
from cifar_cnn.settings import Settings, resolve_settings, validate

VALID = {
    "recipe": st.sampled_from(RECIPES),
    "model": st.sampled_from(["baseline", "my.nets:Net", "nets/my net.py:Net"]),
    "model_arg": st.just(()) | st.just(("width=8", "name = a 'b'", "sizes=[1, 2]")),
    "input_size": st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
    "dataset": st.sampled_from(["cifar10", "folder", "synthetic"]),
    "limit_train": st.none() | st.integers(1, 10**6),
    "limit_eval": st.none() | st.integers(1, 10**6),
    "val_size": st.integers(0, 10**6),
    "test_size": st.floats(0, 0.999),
    "normalization": st.sampled_from(["cifar10", "dataset"]),
    "epochs": st.integers(1, 10**4),
    "batch_size": st.integers(1, 10**5),
    "ghost_batch_size": st.integers(0, 4096),
    "optimizer": st.sampled_from(["sgd", "adamw"]),
    "lr": st.floats(1e-8, 100),
    "momentum": st.floats(0.01, 0.999),
    "nesterov": st.booleans(),
    "deterministic": st.booleans(),
    "weight_decay": st.floats(0, 1),
    "label_smoothing": st.floats(0, 0.999),
    "class_weights": st.sampled_from(["none", "balanced"]),
    "dropout": st.floats(0, 0.999),
    "scheduler": st.sampled_from(["constant", "step", "onecycle", "cosine"]),
    "step_size": st.integers(1, 1000),
    "gamma": st.floats(1e-6, 1),
    "warmup_epochs": st.floats(0, 100),
    "lr_floor": st.floats(0, 0.999),
    "flip": st.floats(0, 1),
    "shift": st.integers(0, 16),
    "affine": st.floats(0, 1),
    "rotation": st.floats(0, 180),
    "color_jitter": st.floats(0, 0.999),
    "cutout": st.floats(0, 1),
    "cutout_size": st.integers(1, 16),
    "mixup": st.floats(0, 0.5),
    "seed": st.integers(0, 2**63 - 1),
    "precision": st.sampled_from(["auto", "fp32", "bf16"]),
    "threads": st.integers(0, 1024),
    "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:3", "mps"]),
}

INVALID = {
    "model": 3,
    "model_arg": ["width"],
    "input_size": "32x",
    "dataset": "cifar",
    "data_dir": 3,
    "limit_train": 0,
    "limit_eval": -1,
    "val_size": -1,
    "test_size": 1.0,
    "normalization": "imagenet",
    "epochs": 0,
    "batch_size": 2.5,
    "ghost_batch_size": -1,
    "optimizer": "adam",
    "lr": 0.0,
    "momentum": 1.0,
    "nesterov": "perhaps",
    "deterministic": "perhaps",
    "weight_decay": -1e-4,
    "label_smoothing": 1.0,
    "class_weights": "balance",
    "dropout": 1.0,
    "scheduler": "linear",
    "step_size": 0,
    "gamma": 0.0,
    "warmup_epochs": -1,
    "lr_floor": 1.0,
    "flip": 1.1,
    "shift": -1,
    "affine": -0.1,
    "rotation": 181,
    "color_jitter": 1.0,
    "cutout": "often",
    "cutout_size": 0,
    "mixup": 0.6,
    "seed": -1,
    "precision": "fp16",
    "threads": -1,
    "device": "gpu",
}


@given(st.fixed_dictionaries({}, optional=VALID))
def test_settings_survive_the_way_through_toml(values):
    settings = resolve_settings(values)
    assert validate(tomllib.loads(settings.to_toml())) == settings


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - {"recipe"}))
def test_every_invalid_value_is_refused_with_its_name(name):
    with pytest.raises(SettingsError, match=f"setting {name} = ") as caught:
        resolve_settings({name: INVALID[name]})
    assert "\n" not in str(caught.value)


@given(st.sampled_from(["lr", "weight_decay", "gamma", "flip"]), st.sampled_from(["nan", "inf"]))
def test_numbers_that_are_not_finite_are_refused(name, value):
    with pytest.raises(SettingsError, match=name):
        resolve_settings({name: float(value)})


def test_overrides_beat_config_beats_recipe_beats_defaults(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('recipe = "reference"\nlr = 0.5\nbatch_size = 7\n')
    settings = resolve_settings({"lr": 0.25}, config)
    assert (settings.lr, settings.batch_size) == (0.25, 7)
    assert (settings.recipe, settings.dropout, settings.epochs) == ("reference", 0.02, 20)


def test_arguments_of_a_network_that_are_no_list_are_refused(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('model_arg = "width=8"\n')
    with pytest.raises(
        SettingsError, match=r"model_arg = 'width=8' is invalid: it has to be a list"
    ):
        resolve_settings({}, config)
    assert resolve_settings().model_arg == ()


def test_a_recipe_on_the_command_line_beats_the_one_in_the_config(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('recipe = "reference"\n')
    assert resolve_settings({"recipe": "tuned"}, config) == resolve_settings({"recipe": "tuned"})


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


def test_settings_of_before_there_was_a_normalization_are_of_cifar10():
    before = resolve_settings({"dataset": "folder"}).model_dump(exclude={"normalization"})
    assert validate(before).normalization == "cifar10"


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


def test_the_default_is_the_tuned_recipe_for_20_epochs():
    settings = resolve_settings()
    assert (settings.recipe, settings.epochs, settings.model) == ("tuned", 20, "baseline")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epochz": 3}, "did you mean 'epochs'"),
        ({"recipe": "refrence"}, "did you mean 'reference'"),
        ({"momentum": 0.0}, "--no-nesterov"),
    ],
)
def test_a_mistake_is_explained_in_one_line(overrides, message):
    with pytest.raises(SettingsError, match=message) as caught:
        resolve_settings(overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"lr = ", b"\xff\xfe"])
def test_a_config_file_that_is_not_toml_is_refused(tmp_path, content):
    config = tmp_path / "run.toml"
    config.write_bytes(content)
    with pytest.raises(SettingsError, match="not valid TOML"):
        resolve_settings({}, config)


def test_a_config_file_with_a_byte_order_mark_is_read(tmp_path):
    config = tmp_path / "run.toml"
    config.write_bytes(b"\xef\xbb\xbflr = 0.5\n")
    assert resolve_settings({}, config).lr == 0.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("lr = -1", "setting lr = -1 is invalid: it has to be above 0"),
        ("epochz = 3", "unknown setting 'epochz' (did you mean 'epochs'?)"),
        ('recipe = "refrence"', "unknown recipe 'refrence' (did you mean 'reference'?)"),
    ],
)
def test_a_mistake_in_a_config_file_names_the_file(tmp_path, content, said):
    config = tmp_path / "run.toml"
    config.write_text(content)
    with pytest.raises(SettingsError) as caught:
        resolve_settings({}, config)
    assert str(caught.value).startswith(f"config file {config}: {said}")


def test_a_config_file_may_need_what_the_command_line_brings(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text("nesterov = true\nmomentum = 0\n")
    assert resolve_settings({"momentum": 0.5}, config).momentum == 0.5
    with pytest.raises(SettingsError, match="nesterov needs a momentum above 0"):
        resolve_settings({}, config)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("input_size", 0, "it has to be at least 1"),
        ("input_size", "foo", "image size, N or HxW (height×width)"),
        ("input_size", [1, 2, 3], "image size, N or HxW (height×width)"),
        ("input_size", 4097, "it has to be at most 4096"),
        ("lr", "fast", "it has to be a number"),
        ("lr", float("nan"), "it has to be a finite number"),
        ("epochs", 2.5, "it has to be a whole number"),
        ("nesterov", "perhaps", "it has to be yes or no (in TOML, true or false)"),
        ("model", 3, "it has to be text"),
        ("data_dir", 3, "it has to be a path"),
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


def test_a_config_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        resolve_settings({}, tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("given", "size"), [("48", (48, 48)), ("24x48", (24, 48)), (40, (40, 40)), ([8, 9], (8, 9))]
)
def test_an_input_size_is_one_side_or_height_and_width(given, size):
    assert resolve_settings({"input_size": given, "shift": 0}).input_size == size


@pytest.mark.parametrize(("epochs", "cutout"), [(5, 0), (29, 0), (30, 1), (200, 1)])
def test_best_cuts_out_squares_in_runs_of_30_epochs_and_more(epochs, cutout, tmp_path):
    assert resolve_settings({"recipe": "best", "epochs": epochs}).cutout == cutout
    config = tmp_path / "config.toml"
    for written in (epochs, float(epochs), f'"{epochs}"'):
        config.write_text(f'recipe = "best"\nepochs = {written}\n')
        assert resolve_settings(config=config).cutout == cutout
    assert resolve_settings({"cutout": 0.5}, config=config).cutout == 0.5


def test_best_without_a_length_is_that_of_the_default_length():
    assert resolve_settings({"recipe": "best"}) == resolve_settings(
        {"recipe": "best", "epochs": Settings.model_fields["epochs"].default}
    )


def test_a_length_that_is_none_is_refused_as_such():
    with pytest.raises(SettingsError, match="setting epochs = 'many' is invalid"):
        resolve_settings({"recipe": "best", "epochs": "many"})


def test_a_setting_of_the_default_recipe_does_not_leak_into_another(tmp_path, monkeypatch):
    for name in RECIPES:
        text = (RECIPE_FOLDER / f"{name}.toml").read_text()
        (tmp_path / f"{name}.toml").write_text(("mixup = 0.25\n" if name == "tuned" else "") + text)
    monkeypatch.setattr("cifar_cnn.recipes.RECIPE_FOLDER", tmp_path)
    assert resolve_settings({}).mixup == 0.25
    assert [resolve_settings({"recipe": name}).mixup for name in ("reference", "best")] == [0, 0]


def test_a_data_folder_may_begin_with_the_users_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.toml").write_text('data_dir = "~/x"')
    assert resolve_settings({}, tmp_path / "a.toml").data_dir == tmp_path / "x"
    assert resolve_settings({"data_dir": "~/x"}).data_dir == tmp_path / "x"


def test_a_data_folder_whose_name_is_not_utf8_is_refused_in_one_line():
    with pytest.raises(SettingsError, match="not UTF-8: rename the folder") as caught:
        resolve_settings({"data_dir": Path(os.fsdecode(b"b\xff"))})
    assert "\n" not in str(caught.value)
