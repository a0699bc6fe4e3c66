import pytest
import torch
from torch import nn

from cifar_cnn.models import build_model
from cifar_cnn.models.blocks import folded


def trained_a_little(name):
    torch.manual_seed(0)
    model = build_model(name).train()
    with torch.no_grad():
        for _ in range(3):
            model(2 * torch.randn(8, 3, 32, 32) + 1)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 2.0)
                norm.bias.normal_()
    return model.eval()


@pytest.mark.parametrize(("name", "norms_left"), [("baseline", 0), ("compact", 3)])
def test_answers_are_the_same_and_the_network_afterwards(name, norms_left):
    model = trained_a_little(name)
    images = torch.randn(4, 3, 32, 32)
    before, modules = dict(model.state_dict()), list(model.named_modules())
    learning = [p.requires_grad for p in model.parameters()]
    with torch.inference_mode():
        expected = model(images)
        with folded(model):
            got = model(images)
            assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == norms_left
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(got, expected)
    assert list(model.named_modules()) == modules
    assert all(
        value is not None and torch.equal(value, before[key])
        for key, value in model.state_dict().items()
    )
    assert [p.requires_grad for p in model.parameters()] == learning
    assert not any(p.is_inference() for p in model.parameters())


def test_an_error_inside_restores_the_network():
    model = trained_a_little("baseline")
    modules = list(model.named_modules())
    with pytest.raises(KeyError), folded(model):
        raise KeyError
    assert list(model.named_modules()) == modules


def test_a_network_of_somebody_else_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    modules = list(model.named_modules())
    with folded(model):
        assert list(model.named_modules()) == modules
