import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_cnn import Budget, summarize


def applied(function):
    """A module that is one function."""

    class Applied(nn.Module):
        def forward(self, x):
            return function(x)

    return Applied()


@pytest.mark.parametrize(
    ("between", "counts"),
    [
        (lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True).expand_as(x), False),
        (lambda x: x.softmax(1), False),
        (F.normalize, False),
        (lambda x: F.group_norm(x, 3).relu(), True),
    ],
)
def test_what_mixes_channels_after_a_depthwise_convolution_makes_it_no_separable_one(
    between, counts
):
    depthwise, pointwise = nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1)
    model = nn.Sequential(depthwise, applied(between), pointwise)
    budget = Budget(require=("depthwise-separable",))
    (_, _, required) = summarize(model, (16, 16), budget=budget).budget.requirements
    assert required.passed == counts
