"""Optimizers against torch's, and the learning rate of every step."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cifar_cnn.errors import ModelError
from cifar_cnn.models import build_model
from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.distributed import ALONE
from cifar_cnn.training.optimizer import (
    OPTIMIZERS,
    Muon,
    learning_rate,
    make_optimizer,
    orthogonal,
)
from cifar_cnn.training.step import TrainingStep


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_may_get_its_first_gradient_late(name):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = make_optimizer(model, resolve_settings({"optimizer": name}))
    for layer in (model[:1], model):
        before = model[1].weight.clone()
        optimizer.zero_grad()
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert (model[1].weight != before).any()


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_torchs_optimizers_decay_only_weights(name, kind):
    model = build_model("baseline")
    settings = resolve_settings({"optimizer": name, "lr": 0.01, "weight_decay": 0.25})
    optimizer = make_optimizer(model, settings)
    assert isinstance(optimizer, kind)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}
    names = {id(p): name for name, p in model.named_parameters()}
    decay = {
        names[id(p)]: group["weight_decay"]
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert set(decay) == set(names.values())
    normalizations = tuple(f"convblock{each}" for each in ("1.1", "2.1", "3.1", "3.5", "4.1"))
    for weight, value in decay.items():
        decays = weight.endswith("weight") and not weight.startswith(normalizations)
        assert value == (0.25 if decays else 0.0), weight


def test_frozen_parameters_are_left_out_and_a_network_of_them_alone_is_refused():
    model = build_model("baseline")
    model.convblock5.requires_grad_(requires_grad=False)
    optimizer = make_optimizer(model, resolve_settings())
    count = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert count == 197_922 - 1_290
    model.requires_grad_(requires_grad=False)
    with pytest.raises(ModelError, match="no parameters to train"):
        make_optimizer(model, resolve_settings())


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
    step = TrainingStep(settings, model)
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


@pytest.mark.parametrize("shape", [(64, 576), (128, 80), (48, 48)])
def test_orthogonal_keeps_the_singular_vectors_and_evens_the_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    projected = left.T @ orthogonal(matrix) @ right.T
    assert torch.allclose(projected, projected.diag().diag(), atol=1e-10)
    large = projected.diag()[values > 0.1 * values.max()]
    assert large.min() > 0.4
    assert large.max() < 1.3


def make_muon(orthogonal_steps, momentum=0.5, weight_decay=0.0):
    weight = torch.nn.Parameter(torch.ones(2, 2, 1, 1))
    group = {"params": [weight], "weight_decay": weight_decay, "orthogonal": orthogonal_steps}
    return weight, Muon([group], lr=0.1, momentum=momentum)


def test_what_is_not_orthogonal_steps_as_torch_s_nesterov_sgd_does():
    weight, muon = make_muon(orthogonal_steps=False)
    plain = torch.nn.Parameter(weight.detach().clone())
    sgd = torch.optim.SGD([plain], lr=0.1, momentum=0.5, nesterov=True)
    for step in range(3):
        weight.grad = torch.full_like(weight, 1.0 + step)
        plain.grad = weight.grad.clone()
        muon.step()
        sgd.step()
    torch.testing.assert_close(weight, plain)


def test_an_orthogonal_step_has_the_size_of_the_learning_rate_whatever_the_gradient():
    sizes = []
    for scale in (1e-3, 1e3):
        weight, muon = make_muon(orthogonal_steps=True)
        weight.grad = scale * torch.tensor([[3.0, 1.0], [0.0, 2.0]]).view(2, 2, 1, 1)
        muon.step()
        sizes.append((1 - weight.detach()).norm())
    assert sizes[0] == pytest.approx(sizes[1].item(), rel=1e-3)
    assert 0.1 * 2**0.5 * 0.6 < sizes[0] < 0.1 * 2**0.5 * 1.3


@pytest.mark.parametrize("orthogonal_steps", [True, False])
def test_weights_decay_apart_from_the_gradient(orthogonal_steps):
    weight, muon = make_muon(orthogonal_steps, weight_decay=0.5)
    weight.grad = torch.zeros_like(weight)
    muon.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2, 1, 1), 1 - 0.1 * 0.5))


@pytest.mark.parametrize("orthogonal_steps", [True, False])
def test_a_step_that_failed_leaves_the_weights(orthogonal_steps):
    weight, muon = make_muon(orthogonal_steps)
    muon.found_inf = torch.tensor(1.0)
    weight.grad = torch.full_like(weight, float("nan"))
    muon.step()
    assert torch.equal(weight, torch.ones(2, 2, 1, 1))
    muon.found_inf = torch.tensor(0.0)
    weight.grad = torch.ones_like(weight)
    muon.step()
    assert torch.isfinite(weight).all()
    assert not torch.equal(weight, torch.ones(2, 2, 1, 1))


def by_epoch(steps=10, **overrides):
    settings = resolve_settings(overrides)
    return [
        {learning_rate(settings, epoch * steps + step, steps) for step in range(steps)}
        for epoch in range(settings.epochs)
    ]


def test_step_6_gamma_01_is_the_references_staircase_and_constant_is_constant():
    assert by_epoch(scheduler="constant", lr=0.01, epochs=3) == [{0.01}] * 3
    rates = by_epoch(recipe="reference", epochs=20, scheduler="step", step_size=6, gamma=0.1)
    assert rates == [{0.01}] * 6 + [{0.001}] * 6 + [{0.0001}] * 6 + [{0.00001}] * 2


def test_one_cycle_rises_for_a_quarter_and_falls_to_nothing():
    settings = resolve_settings({"scheduler": "onecycle", "lr": 0.4, "epochs": 4})
    rates = [learning_rate(settings, step, 100) for step in range(400)]
    peak = max(range(400), key=rates.__getitem__)
    assert peak in (99, 100)
    assert rates[:100] == sorted(rates[:100])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[99] == pytest.approx(0.4, rel=0.01)
    assert rates[49] == pytest.approx(0.4 * 49.5 / 100)
    assert 0 < rates[-1] < 0.001


def test_cosine_rises_in_its_warm_up_and_ends_at_its_floor():
    settings = resolve_settings(
        {"scheduler": "cosine", "lr": 0.4, "epochs": 10, "warmup_epochs": 2, "lr_floor": 0.1}
    )
    rates = [learning_rate(settings, step, 100) for step in range(1000)]
    plain = [0.04 + 0.36 * (1 + math.cos(math.pi * (s + 0.5) / 1000)) / 2 for s in range(1000)]
    assert rates[:200] == pytest.approx([plain[s] * (s + 0.5) / 200 for s in range(200)])
    assert rates[200:] == pytest.approx(plain[200:])
    assert rates[:200] == sorted(rates[:200])
    assert rates[-1] == pytest.approx(0.04, rel=1e-3)


@given(
    st.sampled_from(["constant", "step", "onecycle", "cosine"]),
    st.integers(1, 30),
    st.integers(1, 50),
    st.floats(1e-6, 10),
    st.floats(0, 40),
    st.floats(0, 0.99),
)
def test_the_rate_is_above_zero_and_never_above_lr(scheduler, epochs, steps, lr, warm_up, floor):
    settings = resolve_settings(
        {"scheduler": scheduler, "epochs": epochs, "lr": lr}
        | {"warmup_epochs": warm_up, "lr_floor": floor}
    )
    for step in range(epochs * steps):
        assert 0 < learning_rate(settings, step, steps) <= lr
