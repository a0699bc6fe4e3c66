"""What is used of torch beyond its documentation, each part alone.

If a new torch fails a test here, the place named in its docstring has to follow.
"""

import pytest
import torch
import torch.nn.functional as F

from cifar_cnn.runtime import is_out_of_memory


@pytest.fixture
def maps():
    return torch.randn(3, 5, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_batch_statistics_are_the_mean_and_the_biased_variance(maps):
    """models/layers/batch_norm.py."""
    means, variances = torch.batch_norm_update_stats(maps, maps.new_zeros(5), maps.new_zeros(5), 0)
    torch.testing.assert_close(means, maps.mean((0, 2, 3)))
    torch.testing.assert_close(variances, maps.var((0, 2, 3), correction=0))


def test_the_backward_pass_of_fixed_statistics_sums_over_a_channel(maps):
    """models/layers/batch_norm.py."""
    slopes, mean = maps.flip(0), maps.mean((0, 2, 3))
    ones = torch.ones_like(mean)
    _, products, sums = torch.ops.aten.native_batch_norm_backward(
        slopes, maps, None, mean, ones, None, None, False, 0.0, [False, True, True]
    )
    torch.testing.assert_close(products, (slopes * (maps - mean.view(1, -1, 1, 1))).sum((0, 2, 3)))
    torch.testing.assert_close(sums, slopes.sum((0, 2, 3)))


def test_the_backward_pass_of_a_convolution_takes_its_window_in_this_order(maps):
    """models/layers/convolution.py."""
    maps = maps.requires_grad_()
    weight = torch.randn(10, 1, 3, 2, dtype=torch.float64).requires_grad_()
    bias = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    stride, padding, dilation = (1, 2), (2, 1), (2, 1)
    made = F.conv2d(maps, weight, bias, stride, padding, dilation, 5)
    slopes = torch.ones_like(made)
    found = torch.ops.aten.convolution_backward(
        slopes, maps, weight, [10], stride, padding, dilation, False, [0, 0], 5, [True] * 3
    )
    expected = torch.autograd.grad(made, (maps, weight, bias), slopes)
    torch.testing.assert_close(tuple(found), expected)


def test_tensors_that_share_memory_and_tensors_of_their_own_are_told_apart(maps):
    """analysis/memory.py."""
    memory = maps.untyped_storage()._cdata  # noqa: SLF001
    for shared in (maps.flatten(2), maps.permute(0, 2, 3, 1), maps[:, :1], maps.detach()):
        assert shared.untyped_storage()._cdata == memory  # noqa: SLF001
    assert maps.clone().untyped_storage()._cdata != memory  # noqa: SLF001


def test_running_out_of_memory_is_told_from_other_errors():
    """runtime.py."""
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    with pytest.raises(RuntimeError) as raised:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(raised.value)
