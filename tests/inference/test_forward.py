import pytest
import torch

from cifar_cnn.data.dataset import normalize
from cifar_cnn.errors import RunError
from cifar_cnn.inference.trained import predict_log_probabilities
from cifar_cnn.models import build_model

CPU = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model("baseline", dropout=0.5).to(memory_format=torch.channels_last)


@pytest.fixture
def images():
    return torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)


def test_answers_are_those_of_the_network_in_evaluation_mode(model, images):
    output = predict_log_probabilities(model.train(), images, CPU, "fp32")
    torch.testing.assert_close(output, model.eval()(normalize(images)))


def test_the_network_keeps_its_mode_and_its_statistics(model, images):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predict_log_probabilities(model.train(), images, CPU, "fp32")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_flip_averaging_is_the_mean_of_both_probabilities(model, images):
    plain = predict_log_probabilities(model, images, CPU, "fp32")
    mirrored = predict_log_probabilities(model, images.flip(-1), CPU, "fp32")
    both = predict_log_probabilities(model, images, CPU, "fp32", tta=True)
    torch.testing.assert_close(both.exp(), (plain.exp() + mirrored.exp()) / 2)


def test_bf16_is_close_to_fp32_and_still_answers_in_fp32(model, images):
    output = predict_log_probabilities(model, images, CPU, "bf16")
    assert output.dtype == torch.float32
    expected = predict_log_probabilities(model, images, CPU, "fp32")
    torch.testing.assert_close(output, expected, atol=0.05, rtol=0.05)
    assert not torch.equal(output, expected)


class Greedy(torch.nn.Module):
    def forward(self, images):
        return images.new_empty(1 << 60)


def test_no_memory_is_one_line_and_leaves_the_mode():
    model = Greedy().train()
    with pytest.raises(RunError, match="out of memory on cpu in evaluation: try"):
        predict_log_probabilities(model, torch.zeros(2, 3, 4, 4, dtype=torch.uint8), CPU, "fp32")
    assert model.training
