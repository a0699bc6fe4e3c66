import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.schedule import learning_rate


def by_epoch(steps=10, **overrides):
    settings = resolve_settings(overrides)
    return [
        {learning_rate(settings, epoch * steps + step, steps) for step in range(steps)}
        for epoch in range(settings.epochs)
    ]


def test_step_6_gamma_01_is_the_references_staircase():
    rates = by_epoch(recipe="reference", epochs=20, scheduler="step", step_size=6, gamma=0.1)
    assert rates == [{0.01}] * 6 + [{0.001}] * 6 + [{0.0001}] * 6 + [{0.00001}] * 2


def test_constant_is_constant():
    assert by_epoch(scheduler="constant", lr=0.01, epochs=3) == [{0.01}] * 3


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


def test_cosine_falls_along_half_a_cosine():
    settings = resolve_settings({"scheduler": "cosine", "lr": 0.4, "epochs": 2})
    for step in range(20):
        expected = 0.2 * (1 + math.cos(math.pi * (step + 0.5) / 20))
        assert learning_rate(settings, step, 10) == pytest.approx(expected)


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
