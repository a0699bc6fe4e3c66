import unicodedata
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from cifar_cnn.errors import CheckpointError
from cifar_cnn.inference.trained import open_trained
from cifar_cnn.models import build_model
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.checkpoint import (
    Checkpoint,
    load_weights,
    pack,
    read_checkpoint,
)


@pytest.fixture
def checkpoint():
    return Checkpoint(
        model="baseline",
        classes=("a", "b"),
        settings=resolve_settings({"epochs": 3, "limit_train": 10}),
        metrics={"epoch": 2, "eval_split": "test", "eval_accuracy": 0.5},
        state_dict={"weight": torch.arange(6.0).view(2, 3)},
        training={"epoch": 2, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}},
    )


@pytest.fixture
def file(tmp_path, checkpoint):
    (tmp_path / "last.pt").write_bytes(pack(checkpoint))
    return tmp_path / "last.pt"


def test_what_is_written_is_read_back(file, checkpoint):
    again = read_checkpoint(file)
    assert again.model_dump(exclude={"state_dict", "training"}) == checkpoint.model_dump(
        exclude={"state_dict", "training"}
    )
    assert torch.equal(again.state_dict["weight"], checkpoint.state_dict["weight"])
    assert again.training["epoch"] == 2
    payload = torch.load(file, weights_only=True)  # plain torch reads it too
    assert (payload["format"], payload["classes"]) == ("cifar-cnn/1", ("a", "b"))
    assert zipfile.ZipFile(file).testzip() is None


def test_every_flipped_bit_is_found(file):
    content = file.read_bytes()
    for position in range(0, len(content), 7):
        spoiled = bytearray(content)
        spoiled[position] ^= 1 << position % 8
        file.write_bytes(spoiled)
        with pytest.raises(CheckpointError, match=r"last\.pt") as caught:
            read_checkpoint(file)
        assert "\n" not in str(caught.value)


def test_every_truncation_is_found(file):
    content = file.read_bytes()
    for length in {*range(0, len(content), 13), *range(len(content) - 90, len(content))}:
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"last\.pt"):
            read_checkpoint(file)


def test_what_is_no_checkpoint_says_what_it_lacks(file, tmp_path):
    torch.save(torch.load(file, weights_only=True), file)
    with pytest.raises(CheckpointError, match="digest is missing"):
        read_checkpoint(file)
    torch.save({"epoch": 3, "state_dict": {"weight": torch.ones(1)}}, file)
    with pytest.raises(CheckpointError, match="save its 'state_dict' alone"):
        read_checkpoint(file)
    with pytest.raises(CheckpointError, match=r"none\.pt cannot be read: No such file"):
        read_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("convblock5.0.bias"), r"convblock5\.0\.bias is missing from it"),
        (lambda s: s.update(extra=torch.ones(1)), "extra is not in the network"),
        (lambda s: s.update({"convblock5.0.bias": torch.ones(7)}), "is 7 in it, 10 in the network"),
        (
            lambda s: s.update(extra=s.pop("convblock5.0.bias")),
            "x.pt belongs to another network: convblock5.0.bias is missing from it, "
            "extra is not in the network$",
        ),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, change, message):
    model = build_model("baseline")
    weights = dict(model.state_dict())
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, weights, tmp_path / "x.pt")


def test_weights_are_loaded_under_the_names_that_wrappers_give_them():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    weights = {name: torch.rand_like(value) for name, value in model.state_dict().items()}
    for wrapped in (
        {f"module.{name}": value for name, value in weights.items()},
        {f"_orig_mod.{name}": value for name, value in weights.items()},
        {f"module._orig_mod.module.{name}": value for name, value in weights.items()},
        {f"model.{name}": value for name, value in weights.items()},
        {f"module.net.{name}": value for name, value in weights.items()},
        {name.replace(".", "._orig_mod."): value for name, value in weights.items()},
    ):
        torch.nn.init.zeros_(model[0].weight)
        load_weights(model, wrapped, Path("file"))
        assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)


def test_a_network_whose_own_names_begin_like_a_wrappers_is_loaded_as_it_is():
    model = torch.nn.ModuleDict({"model": torch.nn.Linear(2, 3)})
    weights = dict(model.state_dict())
    for prefix in ("", "module.", "model."):
        load_weights(model, {f"{prefix}{name}": weights[name] for name in weights}, Path("file"))
    both = {**weights, "weight": torch.ones(3, 2)}
    with pytest.raises(CheckpointError, match=r"network: weight is not in the network$"):
        load_weights(model, both, Path("file"))


def test_the_counters_of_batch_normalization_may_lack():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    weights = {f"net.{name}": torch.rand_like(model.state_dict()[name]) for name in names}
    load_weights(model, weights, Path("file"))
    assert all(torch.equal(model.state_dict()[name], weights[f"net.{name}"]) for name in names)


def test_files_of_other_forms_are_called_what_they_are(tmp_path):
    model = torch.nn.Linear(2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(model), tmp_path / "script.pt")
        torch.export.save(torch.export.export(model, (torch.ones(1, 2),)), tmp_path / "a.pt2")
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08")
    for name, content in (("old", model), ("old_weights", model.state_dict())):
        torch.save(content, tmp_path / f"{name}.pt", _use_new_zipfile_serialization=False)
    torch.save(model, tmp_path / "whole.pt")
    for name, kind in (
        ("script.pt", "it is a program of TorchScript or torch.export: give the weights"),
        ("a.pt2", "it is a program of TorchScript or torch.export: give the weights"),
        ("net.onnx", "net.onnx is an ONNX network, not a checkpoint: give the weights"),
        ("old.pt", r"before version 1\.6: .*torch\.save\(torch\.load"),
        ("old_weights.pt", r"before version 1\.6: .*torch\.save\(torch\.load"),
        ("whole.pt", r"save the network's state_dict\(\) alone"),
    ):
        with pytest.raises(CheckpointError, match=kind):
            read_checkpoint(tmp_path / name)


def test_class_names_are_in_one_unicode_form_whatever_a_system_wrote(untrained_file):
    classes = tuple(unicodedata.normalize("NFD", name) for name in ("blau", "grün", "rot"))
    stored = read_checkpoint(untrained_file).model_copy(update={"classes": classes})
    untrained_file.write_bytes(pack(stored))
    assert read_checkpoint(untrained_file).classes == ("blau", "grün", "rot")


def test_the_network_that_is_built_is_the_one_that_is_to_be_named_again(
    untrained_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("planted.py").write_text("raise SystemExit('ran')")
    stored = read_checkpoint(untrained_file)
    settings = stored.settings.model_copy(update={"model": "planted.py:Net"})
    untrained_file.write_bytes(pack(stored.model_copy(update={"settings": settings})))
    with pytest.raises(CheckpointError, match=r"--model planted\.py:Net: pass that again"):
        open_trained(untrained_file)
