"""What older versions wrote loads, evaluates as it did there, and goes on.

`small.py` is a network of 962 parameters, `made_by_*/` the config file of a run of 60 steps on
`synthetic`, the directory of that run stopped early, and the `model.pt` of the whole run.
`averaged.pt` was trained with `--ema 0.9`, which 0.2.0 had. Both versions trained own networks
channels-last, where sums round otherwise and dropout draws otherwise: what is learned is as good,
not the same.
"""

import shutil
import tomllib
from pathlib import Path

import pytest
import tomli_w

from cifar_cnn import UserError, evaluate, plan_run, read_run, resolve_settings, train
from cifar_cnn.storage.archive import load_archive, save_archive
from cifar_cnn.storage.checkpoint import read_checkpoint

MODEL = {"model": "small.py:net"}
VERSIONS = ("made_by_0_1_0", "made_by_0_2_0")


@pytest.fixture
def made(request, tmp_path, monkeypatch):
    """Fill the current folder with the network and what the version wrote."""
    here = Path(__file__).parent
    shutil.copytree(here / request.param, tmp_path, dirs_exist_ok=True)
    shutil.copy(here / "small.py", tmp_path)
    monkeypatch.chdir(tmp_path)


def resume():
    plan = plan_run(MODEL, resume=Path("stopped"))
    return train(plan.settings, plan.directory, checkpoint=plan.checkpoint, report=False)


def check_as_good(path):
    trained, expected = read_checkpoint(path), read_checkpoint(Path("model.pt"))
    assert trained.state_dict.keys() == expected.state_dict.keys()
    assert trained.metrics["step"] == expected.metrics["step"] == 60
    assert trained.metrics["eval_loss"] == pytest.approx(expected.metrics["eval_loss"], rel=0.05)


@pytest.mark.parametrize(
    ("made", "file", "accuracy", "loss"),
    [
        ("made_by_0_1_0", "model.pt", 0.1425, 2.225996258676052),
        ("made_by_0_2_0", "model.pt", 0.162, 2.19672585529089),
        ("made_by_0_2_0", "averaged.pt", 0.1605, 2.19985227560997),
    ],
    indirect=["made"],
)
def test_a_checkpoint_evaluates_to_the_same_numbers(made, file, accuracy, loss):
    result = evaluate(file, overrides=MODEL)
    assert (result.samples, result.accuracy) == (2000, accuracy)
    assert result.loss == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("made", VERSIONS, indirect=True)
def test_a_stopped_run_goes_on_to_its_end(made):
    check_as_good(resume().model_file)


@pytest.mark.parametrize("made", VERSIONS, indirect=True)
def test_a_config_file_trains_the_same_network(made):
    settings = resolve_settings(config=Path("config.toml"))
    check_as_good(train(settings, Path("again"), report=False).model_file)


@pytest.mark.parametrize("made", ["made_by_0_2_0"], indirect=True)
@pytest.mark.parametrize(("name", "value"), [("ema", 0.9), ("teacher", "t.pt")])
def test_a_run_with_a_removed_setting_evaluates_and_does_not_go_on(made, name, value):
    last = Path("stopped", "last.pt")
    payload = load_archive(last.read_bytes())
    payload["settings"] |= {name: value}
    last.write_bytes(save_archive(payload))
    for file in (Path("config.toml"), Path("stopped", "settings.toml")):
        file.write_text(tomli_w.dumps(tomllib.loads(file.read_text()) | {name: value}))
    assert read_run("stopped").state == "interrupted"
    assert evaluate(last, overrides=MODEL | {"limit_eval": 20}).samples == 20
    line = f"setting {name} = {value!r} was removed after version 0.2.0: use that version"
    with pytest.raises(UserError, match=f"^{last} cannot be resumed: {line}") as caught:
        resume()
    assert caught.value.exit_status == 1
    with pytest.raises(UserError, match=f"^config file config.toml: {line}") as caught:
        resolve_settings(config=Path("config.toml"))
    assert caught.value.exit_status == 2
