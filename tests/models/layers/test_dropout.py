import pytest
import torch

from cifar_cnn.models.layers.dropout import QuickDropout, dropped_positions


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
def test_positions_are_drawn_like_independent_coins(p):
    torch.manual_seed(0)
    count, rounds = 40, 4000
    dropped = torch.zeros(rounds, count)
    for row in dropped:
        row[dropped_positions(count, p)] = 1
    spread = (p * (1 - p) / rounds) ** 0.5
    assert float((dropped.mean(dim=0) - p).abs().max()) < 5 * spread
    totals = dropped.sum(dim=1)
    assert float(totals.var()) == pytest.approx(count * p * (1 - p), rel=0.1)
    neighbors = (dropped[:, 1:] * dropped[:, :-1]).mean()
    assert float(neighbors) == pytest.approx(p * p, abs=5 * p / (rounds * count) ** 0.5)


def test_a_draw_that_was_too_short_goes_on(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(
        torch, "rand", lambda count, dtype, generator: torch.zeros(count, dtype=dtype)
    )
    assert dropped_positions(100, 0.02).tolist() == list(range(100))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_scaled_or_zero_together(layout):
    torch.manual_seed(0)
    values = torch.rand(8, 6, 10, 12).add(1).to(memory_format=layout).requires_grad_()
    output = QuickDropout(0.25)(values)
    kept = output != 0
    assert 0.7 < float(kept.float().mean()) < 0.8
    torch.testing.assert_close(output[kept], values[kept] / 0.75)
    gradient = torch.rand(8, 6, 10, 12)  # in the other layout for one of the two
    output.backward(gradient)
    torch.testing.assert_close(values.grad, torch.where(kept, gradient / 0.75, 0.0))


def test_it_draws_anew_each_time_and_the_same_for_a_seed():
    layer, values = QuickDropout(0.5), torch.ones(100)
    torch.manual_seed(3)
    first, second = layer(values), layer(values)
    torch.manual_seed(3)
    assert torch.equal(layer(values), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_in_evaluation_or_at_zero():
    values = torch.ones(5)
    assert torch.equal(QuickDropout(0.5).eval()(values), values)
    assert torch.equal(QuickDropout(0.0)(values), values)
    assert torch.equal(QuickDropout(1.0)(values), torch.zeros(5))
