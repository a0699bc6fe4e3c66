import pytest
from torch import nn

from cifar_cnn.training.ema import WeightAverage


def network(value):
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    for tensor in model.state_dict().values():
        tensor.fill_(value)
    return model


def value(model):
    """Return the one value that all parameters and buffers have, counters apart."""
    (found,) = {tensor.mean().item() for tensor in model.state_dict().values() if tensor.ndim}
    return found


def test_the_average_of_parameters_and_buffers_is_the_one_worked_out_by_hand():
    model = network(0)
    average = WeightAverage(model, decay=0.5)
    model.load_state_dict(network(8).state_dict())
    average.update(model, step=100)
    assert value(average.model) == 4
    average.update(model, step=101)
    assert value(average.model) == 6
    assert value(model) == 8


def test_the_first_weights_do_not_outlast_a_short_run():
    model = network(0)
    average = WeightAverage(model, decay=0.999)
    model.load_state_dict(network(10).state_dict())
    average.update(model, step=0)
    assert value(average.model) == pytest.approx(9)
    average.update(model, step=1)
    assert value(average.model) == pytest.approx(9 * 2 / 11 + 10 * 9 / 11)


def test_counters_are_taken_as_they_are():
    model = network(0)
    average = WeightAverage(model, decay=0.5)
    model[1].num_batches_tracked.fill_(7)
    average.update(model, step=100)
    assert int(average.model[1].num_batches_tracked) == 7


def test_the_average_is_not_trained():
    average = WeightAverage(network(1), decay=0.5)
    assert not any(p.requires_grad for p in average.model.parameters())
