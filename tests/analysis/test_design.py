import pytest

from cifar_cnn import Budget, design, summarize
from cifar_cnn.analysis.design import find_members
from cifar_cnn.models.compact import channels_of


def is_within(width, budget, size=(32, 32)):
    summary = summarize("compact", size, model_arg=[f"width={width:g}"], budget=budget)
    return summary.budget.passed


@pytest.mark.parametrize(
    "limits",
    [
        {"max_params": 12_500},
        {"max_params": 50_000},
        {"max_params": 200_000},
        {"max_params": None, "max_mult_adds": 10_000_000},
        {"max_params": 1_000_000, "max_mult_adds": 100_000_000},
    ],
)
def test_it_is_the_largest_member_that_meets_all_limits(limits):
    budget, members = Budget(**limits), find_members()
    found = design(budget)
    assert found.has_passed
    width = float(found.model_arg[0].removeprefix("width="))
    next_width = members[members.index(width) + 1]
    assert is_within(width, budget)
    assert not is_within(next_width, budget)


def test_members_have_different_channels_and_the_shortest_widths():
    members = find_members()
    channels = [channels_of(width) for width in members]
    assert channels == sorted(channels)
    assert len({*map(tuple, channels)}) == len(members)
    assert {0.5, 1, 2, 4} <= {*members}


@pytest.mark.parametrize("limits", [{"max_params": 1000}, {"min_rf": 500}, {"max_mult_adds": 1}])
def test_if_none_fits_it_is_the_smallest_member_which_has_not_passed(limits):
    found = design(Budget(**limits))
    assert not found.has_passed
    assert found.model_arg == (f"width={find_members()[0]:g}",)


def test_classes_and_image_size_count():
    found = design(Budget(max_params=None, max_mult_adds=30_000_000), (64, 48), num_classes=4)
    assert found.summary.input_size == (3, 64, 48)
    assert found.summary.layers[-1].output_size == (4,)
    assert found.summary.totals.mult_adds <= 30_000_000
    assert found.model_arg != design(Budget(max_params=None, max_mult_adds=30_000_000)).model_arg
