import pytest
import torch
from torch import nn

from cifar_cnn.models.layers.batch_norm import QuickBatchNorm2d


def trained(norm, maps, weights):
    """Return the output and the gradients of maps, weight and bias."""
    maps = maps.clone().requires_grad_()
    output = norm.train()(maps)
    output.backward(weights)
    return output.detach(), maps.grad, norm.weight.grad, norm.bias.grad


def pair(channels, dtype):
    torch.manual_seed(0)
    ours, torchs = QuickBatchNorm2d(channels), nn.BatchNorm2d(channels)
    with torch.no_grad():
        ours.weight.uniform_(0.5, 2.0)
        ours.bias.normal_()
    torchs.load_state_dict(ours.state_dict())
    return (ours.double(), torchs.double()) if dtype == torch.float64 else (ours, torchs)


@pytest.mark.parametrize("channels", [24, 84, 10])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 2**-6)])
def test_in_training_it_is_torchs(channels, dtype, tolerance):
    ours, torchs = pair(channels, dtype)
    maps = (2 * torch.randn(5, channels, 12, 16) + 1).to(dtype)
    maps = maps.contiguous(memory_format=torch.channels_last)
    weights = torch.randn_like(maps) + 0.3
    for _ in range(2):  # the running statistics move twice
        got, expected = trained(ours, maps, weights), trained(torchs, maps, weights)
    assert got[0].stride() == maps.stride() == got[1].stride()
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        error = (one.double() - other.double()).norm() / other.double().norm()
        assert float(error) < tolerance
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, torchs.state_dict()[name], msg=name)
    assert "NarrowBatchNorm" in ours(maps).grad_fn.name()


@pytest.mark.parametrize("channels", [24, 32])
def test_everywhere_else_it_is_torchs_own(channels):
    ours, torchs = pair(channels, torch.float32)
    usual, odd = torch.randn(4, channels, 8, 8), torch.randn(4, channels, 3, 3)
    odd = odd.contiguous(memory_format=torch.channels_last)
    for maps in (usual, odd):
        assert torch.equal(ours.train()(maps), torchs.train()(maps))
    last = usual.contiguous(memory_format=torch.channels_last)
    assert torch.equal(ours.eval()(last), torchs.eval()(last))


def test_one_number_a_channel_cannot_be_normalized():
    with pytest.raises(ValueError, match="more than 1 value"):
        QuickBatchNorm2d(24)(torch.zeros(1, 24, 1, 1))


def test_numbers_that_are_not_finite_stay_so():
    maps = torch.zeros(2, 24, 8, 8).contiguous(memory_format=torch.channels_last)
    maps[1, 5, 3, 3] = torch.nan
    output = QuickBatchNorm2d(24)(maps.requires_grad_())
    assert output[:, 5].isnan().all()
    assert output.isnan().sum() == output[:, 5].numel()
