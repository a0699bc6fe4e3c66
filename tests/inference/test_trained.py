import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cifar_cnn import effective_field, evaluate, predict, resolve_settings, summarize, train
from cifar_cnn.data.dataset import Normalization, normalize
from cifar_cnn.data.load import load_test
from cifar_cnn.errors import RequestError, RunError
from cifar_cnn.inference.export import export
from cifar_cnn.inference.trained import open_trained, predict_log_probabilities
from cifar_cnn.models import build_model
from cifar_cnn.storage.checkpoint import pack, read_checkpoint

OTHER = Normalization((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


@pytest.fixture
def other_normalization(untrained_file, image_folder):
    """A checkpoint whose images have another mean and deviation than the reference's."""
    given = {"dataset": "folder", "data_dir": image_folder, "precision": "fp32"}
    changes = {"mean": OTHER.mean, "std": OTHER.std, "settings": resolve_settings(given)}
    checkpoint = read_checkpoint(untrained_file).model_copy(update=changes)
    untrained_file.write_bytes(pack(checkpoint))
    return untrained_file


def test_evaluation_and_prediction_normalize_as_the_checkpoint_says(
    other_normalization, image_folder
):
    trained = open_trained(other_normalization)
    data = load_test(trained.settings)
    with torch.inference_mode():
        expected = trained.model(normalize(data.images, OTHER))
        otherwise = trained.model(normalize(data.images))
    loss = evaluate(other_normalization).loss
    assert loss == pytest.approx(F.nll_loss(expected, data.labels).item(), rel=1e-5)
    assert loss != pytest.approx(F.nll_loss(otherwise, data.labels).item(), rel=1e-4)
    first = sorted((image_folder / "test" / "blue").iterdir())[0]
    (best, *_) = predict([first], other_normalization).predictions[0].top
    assert best.probability == pytest.approx(expected[0].exp().max().item(), rel=1e-4)


def global_state():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002 - the global one is what is meant
        torch.get_num_threads(),
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
    )


def write_lazy(folder):
    """Write a network whose layers take their shape from their first image; return the file."""
    file = folder / "lazy.py"
    file.write_text(
        "from torch import nn\n"
        "def make(num_classes): return nn.Sequential(nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), "
        "nn.Flatten(), nn.LazyLinear(num_classes))\n"
    )
    return file


def test_the_library_leaves_random_numbers_and_torchs_switches_alone(tmp_path, small_settings):
    before, drawn = global_state(), random.getstate()
    result = train(small_settings(epochs=1), tmp_path / "run", report=False)
    evaluate(result.model_file)
    effective_field(result.model_file, samples=2)
    effective_field(samples=2)
    summarize(f"{write_lazy(tmp_path)}:make")
    assert global_state() == before
    assert random.getstate() == drawn


def test_a_device_that_is_not_there_is_refused_before_images_are_read(untrained_file):
    overrides = {"device": "cuda:99", "data_dir": "nowhere"}
    with pytest.raises(RequestError, match="device cuda:99 is not on this machine"):
        evaluate(untrained_file, overrides=overrides)


def test_lazy_layers_take_their_shape_before_they_take_their_weights(
    small_settings, tmp_path, monkeypatch
):
    spec = f"{write_lazy(tmp_path)}:make"
    train(small_settings(model=spec, epochs=1), tmp_path / "run", report=False)
    trained = open_trained(tmp_path / "run" / "model.pt", {"model": spec})
    assert trained.model[3].weight.shape == (3, 4)
    exported = export(tmp_path / "run" / "model.pt", "safetensors", overrides={"model": spec})
    assert exported.max_difference == 0


CPU = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model("baseline", dropout=0.5).to(memory_format=torch.channels_last)


@pytest.fixture
def images():
    return torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)


def test_a_network_answers_in_evaluation_mode_and_keeps_its_mode_and_statistics(model, images):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    output = predict_log_probabilities(model.train(), images, CPU, "fp32")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(output, model.eval()(normalize(images)))


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
