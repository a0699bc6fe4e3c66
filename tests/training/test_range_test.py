import numpy as np
import pytest
import torch
from torch import nn

from cifar_cnn import Settings, find_lr
from cifar_cnn.errors import RunError
from cifar_cnn.training.trial import HIGHEST_RATE, LOWEST_RATE, RANGE_STEPS, read_losses

RATES = np.geomspace(LOWEST_RATE, HIGHEST_RATE, RANGE_STEPS)
FLAT, PEAKED = (Settings(scheduler=name) for name in ("constant", "onecycle"))


def bowl(fastest, rises, scatter=0.05, depth=1.0):
    """Losses that fall fastest at one rate, and rise again around another."""
    falling = 1 / (1 + (RATES / fastest) ** 2)
    rising = 3 * (RATES / rises) ** 4
    noise = np.random.RandomState(0).normal(0, scatter, RANGE_STEPS)
    return (1.3 + depth * falling + np.minimum(rising, 3) + noise).tolist()


def test_the_steepest_fall_the_lowest_loss_and_the_divergence_are_found():
    result = read_losses(RATES.tolist(), bowl(fastest=0.01, rises=1), FLAT)
    assert result.steepest_lr == pytest.approx(0.01, rel=0.4)
    assert 0.05 < result.lowest_lr < 0.5
    assert result.lowest_lr < result.diverging_lr < 1
    assert result.suggested_lr == pytest.approx(result.steepest_lr, rel=0.05)
    assert f"{result.suggested_lr:.2g}" == f"{result.suggested_lr:g}"


def test_a_peak_is_midway_between_the_steepest_fall_and_the_lowest_loss():
    result = read_losses(RATES.tolist(), bowl(fastest=0.01, rises=1), PEAKED)
    midway = (result.steepest_lr * result.lowest_lr) ** 0.5
    assert result.suggested_lr == pytest.approx(midway, rel=0.05)


def test_losses_that_do_not_rise_again_do_not_diverge():
    result = read_losses(RATES.tolist(), bowl(fastest=0.01, rises=1e9), FLAT)
    assert result.diverging_lr is None


def test_a_test_that_ended_early_diverged_where_it_ended():
    losses = bowl(fastest=0.01, rises=1e9)[:250]
    result = read_losses(RATES[:250].tolist(), losses, FLAT)
    assert result.diverging_lr == pytest.approx(RATES[249])


@pytest.mark.parametrize("depth", [0, 0.02, -1])
def test_a_fall_within_the_scatter_of_the_losses_is_none(depth):
    with pytest.raises(RunError, match="the loss never falls at learning rates from 1e-05 to 10"):
        read_losses(RATES.tolist(), bowl(0.01, 1, depth=depth), FLAT)


class Plain(nn.Module):
    def __init__(self, num_classes, scale):
        super().__init__()
        self.linear, self.scale = nn.Linear(3072, num_classes), scale

    def forward(self, images):
        return self.linear(images.flatten(1)) * self.scale


def finite(num_classes=3):
    return Plain(num_classes, 1.0)


def not_finite(num_classes=3):
    return Plain(num_classes, float("nan"))


def deaf(num_classes=3):
    return Plain(num_classes, 0.0)


def test_an_exploding_loss_ends_the_test_and_changes_nothing_global(small_settings):
    torch.manual_seed(5)
    before, told = torch.get_rng_state(), []
    settings = small_settings(model=f"{__file__}:finite", scheduler="constant")
    result = find_lr(settings, progress=lambda *now: told.append(now))
    steps = [(done, total) for doing, _, done, total in told if doing == "step"]
    assert steps == [(number + 1, RANGE_STEPS) for number in range(len(result.curve))]
    assert 50 < len(result.curve) < RANGE_STEPS
    assert result.curve[-1].loss > 4 * result.curve[0].loss
    assert result.steepest_lr < result.lowest_lr < result.diverging_lr
    assert torch.equal(torch.get_rng_state(), before)
    again = find_lr(settings)
    assert again == result


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("not_finite", "the loss or its gradient is not finite at the first step"),
        ("deaf", "the loss never falls at learning rates from 1e-05 to 10"),
    ],
)
def test_a_network_that_cannot_learn_is_said(small_settings, factory, said):
    with pytest.raises(RunError, match=said):
        find_lr(small_settings(model=f"{__file__}:{factory}"))
