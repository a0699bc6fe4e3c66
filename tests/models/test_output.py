import pytest
import torch
from torch import nn

from cifar_cnn.errors import ModelError
from cifar_cnn.models import build_model, check_output, log_probabilities


class TwoOutputs(nn.Module):
    def forward(self, images):
        return images, images


def test_logits_become_log_probabilities():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    output = log_probabilities(model, torch.randn(3, 3, 2, 2))
    torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(3))


def test_log_probabilities_of_a_network_that_gives_them_are_left_to_the_bit():
    model, images = build_model("baseline").eval(), torch.randn(3, 3, 32, 32)
    assert torch.equal(log_probabilities(model, images), model(images))


def test_a_network_that_fits_passes_and_keeps_its_mode():
    model = build_model("baseline", num_classes=7).train()
    check_output(model, (32, 32), 7)
    assert model.training


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (build_model("baseline"), r"output for one image is \(1, 10\), .* needs \(1, 7\)"),
        (nn.Conv2d(3, 7, 3), r"output for one image is \(1, 7, 30, 30\)"),
        (nn.Conv2d(1, 7, 3), "cannot take 3x32x32 images"),
        (TwoOutputs(), "returns tuple, not one tensor"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_one_line(model, message):
    with pytest.raises(ModelError, match=message) as caught:
        check_output(model, (32, 32), 7)
    assert "\n" not in str(caught.value)
