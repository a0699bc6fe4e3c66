import pytest
import torch
from torch import nn

from cifar_cnn.errors import ModelError
from cifar_cnn.models import build_model
from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.distributed import ALONE
from cifar_cnn.training.optimizer import OPTIMIZERS, make_optimizer
from cifar_cnn.training.step import TrainingStep


def test_only_weights_decay():
    model = build_model("baseline")
    optimizer = make_optimizer(model, resolve_settings({"weight_decay": 0.25}))
    names = {id(p): name for name, p in model.named_parameters()}
    decay = {
        names[id(p)]: group["weight_decay"]
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert set(decay) == set(names.values())
    normalizations = ("convblock1.1", "convblock2.1", "convblock3.1", "convblock3.5")
    normalizations += ("convblock4.1",)
    for name, value in decay.items():
        is_weight = name.endswith("weight") and not name.startswith(normalizations)
        assert value == (0.25 if is_weight else 0.0), name


def test_frozen_parameters_are_left_out():
    model = build_model("baseline")
    model.convblock5.requires_grad_(requires_grad=False)
    optimizer = make_optimizer(model, resolve_settings())
    count = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert count == 197_922 - 1_290


def test_a_network_without_trainable_parameters_is_refused():
    model = build_model("baseline").requires_grad_(requires_grad=False)
    with pytest.raises(ModelError, match="no parameters to train"):
        make_optimizer(model, resolve_settings())


def test_momentum_is_that_of_the_settings():
    optimizer = make_optimizer(build_model("baseline"), resolve_settings({"recipe": "reference"}))
    for group in optimizer.param_groups:
        assert (group["momentum"], group["nesterov"], group["lr"]) == (0.9, False, 0.01)


def test_adamw_is_torchs_and_decays_weights_only():
    settings = resolve_settings({"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.05})
    optimizer = make_optimizer(build_model("baseline"), settings)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}


def test_a_complex_parameter_is_refused_in_one_line():
    model = nn.Linear(2, 2)
    model.phase = nn.Parameter(torch.ones(2, dtype=torch.cfloat))
    with pytest.raises(ModelError, match=r"parameter phase is torch\.complex64"):
        make_optimizer(model, resolve_settings())


def test_another_optimizer_is_one_entry_and_takes_no_step_that_is_not_finite(monkeypatch):
    """Torch's own Muon: for matrices only, and without `found_inf`."""

    def make(parameters, lr, _settings):
        return torch.optim.Muon(parameters, lr=lr)

    monkeypatch.setitem(OPTIMIZERS, "torch's Muon", make)
    settings = resolve_settings({"precision": "fp32"}).model_copy(
        update={"optimizer": "torch's Muon"}
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False))
    step = TrainingStep(settings, model, make_optimizer(model, settings), torch.device("cpu"))
    images, labels = torch.randn(5, 3, 2, 2), torch.arange(5) % 3
    before = model[1].weight.detach().clone()
    step.prepare(0, 0.1, ALONE.part(5))
    step.update(images, labels)
    moved = model[1].weight.detach().clone()
    assert not torch.equal(moved, before)
    step.prepare(1, 0.1, ALONE.part(5))
    step.update(images * float("inf"), labels)
    assert torch.equal(model[1].weight, moved)
    assert step.totals.read().failed_step == 1
