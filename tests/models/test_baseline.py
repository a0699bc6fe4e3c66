import pytest
import torch

from cifar_cnn.models import build_model

# The state-dict names of the reference program and, from its README, the parameters of each layer.
LAYERS = {
    "convblock1.0": 648,
    "convblock1.1": 48,
    "convblock2.0.depthwise": 240,
    "convblock2.0.pointwise": 1_200,
    "convblock2.1": 96,
    "convblock3.0": 27_712,
    "convblock3.1": 128,
    "convblock3.4": 55_392,
    "convblock3.5": 192,
    "convblock4.0": 110_720,
    "convblock4.1": 256,
    "convblock5.0": 1_290,
}


def test_layers_have_the_references_names_and_parameters():
    model = build_model("baseline")
    counts = {}
    for name, parameter in model.named_parameters():
        layer = name.rpartition(".")[0]
        counts[layer] = counts.get(layer, 0) + parameter.numel()
    assert counts == LAYERS
    assert sum(counts.values()) == 197_922


def test_classes_and_dropout_are_the_callers():
    model = build_model("baseline", num_classes=3, dropout=0.25)
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}


@pytest.mark.parametrize("size", [1, 7, 32, 33, 64])
def test_any_image_size_fits(size):
    output = build_model("baseline").eval()(torch.randn(2, 3, size, size))
    assert output.shape == (2, 10)
    torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(2))  # log-probabilities


def test_under_bf16_the_log_probabilities_are_computed_in_fp32():
    model = build_model("baseline").eval()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        output = model(torch.randn(4, 3, 32, 32))
    assert output.dtype == torch.float32
    assert not torch.equal(output, output.bfloat16().float())
