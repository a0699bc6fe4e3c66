"""The built-in networks: what they compute, and that they keep the brief."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_cnn import Budget, build_model, export, receptive_field, summarize, train, verify
from cifar_cnn.errors import CheckpointError
from cifar_cnn.inference.trained import open_trained
from cifar_cnn.models.baseline import Baseline
from cifar_cnn.models.compact import Whitening
from cifar_cnn.storage.checkpoint import OF_FORMER_COMPACT, pack, read_checkpoint

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


@pytest.fixture
def compact():
    torch.manual_seed(0)
    return build_model("compact")


def test_layers_of_baseline_have_the_references_names_and_parameters():
    counts = {}
    for name, parameter in build_model("baseline").named_parameters():
        layer = name.rpartition(".")[0]
        counts[layer] = counts.get(layer, 0) + parameter.numel()
    assert counts == LAYERS
    assert sum(counts.values()) == 197_922


@pytest.mark.parametrize(
    ("name", "parameters", "field"), [("baseline", 197_922, 49), ("compact", 186_288, 90)]
)
def test_the_brief_is_met_and_the_receptive_field_proved(name, parameters, field):
    summary = summarize(name, budget=Budget())
    assert summary.totals.parameters == parameters
    assert summary.budget.passed
    assert receptive_field(name).final.receptive_field == (field, field)
    assert verify(name).agreed


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(("baseline", (size, size)) for size in (1, 7, 32, 33, 64)),
        *(("compact", size) for size in ((32, 32), (24, 40), (16, 16))),
    ],
)
def test_images_of_any_size_fit_and_any_number_of_classes(name, size):
    output = build_model(name, num_classes=3).eval()(torch.randn(2, 3, *size))
    assert output.shape == (2, 3)
    if name == "baseline":
        torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(2))  # log-probabilities


def test_dropout_is_the_callers_else_0_for_a_name_and_the_references_for_its_class():
    def dropouts(model):
        return {m.p for m in model.modules() if isinstance(m, nn.Dropout)}

    for name in ("baseline", "compact"):
        assert dropouts(build_model(name, dropout=0.25)) == {0.25}
        assert dropouts(build_model(name)) == {0.0}
    assert dropouts(Baseline()) == {0.02}


def test_under_bf16_baselines_log_probabilities_are_computed_in_fp32():
    model = build_model("baseline").eval()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        output = model(torch.randn(4, 3, 32, 32))
    assert output.dtype == torch.float32
    assert not torch.equal(output, output.bfloat16().float())


def test_bf16_on_the_cpu_gives_nearly_the_same_answers(compact):
    images = torch.randn(4, 3, 32, 32)
    exact = compact.eval()(images)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compact(images).float(), exact, atol=0.05, rtol=0.05)


def test_the_gradient_reaches_every_parameter_of_compact_that_learns(compact):
    compact.train()
    F.cross_entropy(compact(torch.randn(8, 3, 32, 32)), torch.arange(8)).backward()
    for name, parameter in compact.named_parameters():
        if name == "whiten.weight":
            assert parameter.grad is None
            continue
        size = parameter.grad.abs().max()
        assert torch.isfinite(size), name
        assert size > 0, name


def test_whitened_patches_are_uncorrelated_with_variance_1():
    torch.manual_seed(0)
    images = F.avg_pool2d(torch.randn(300, 3, 18, 18), 3, stride=1)  # neighbors are alike
    whiten = Whitening()
    whiten.fit(images)
    images = torch.cat([images, images.flip(-1)])
    answers = whiten(images).movedim(1, -1).flatten(0, -2)
    positive = [*range(6), *range(12, 18)]
    covariance = answers[:, positive].T @ answers[:, positive] / len(answers)
    torch.testing.assert_close(covariance, torch.eye(12), atol=0.1, rtol=0)
    negative = [channel + 6 for channel in positive]
    assert torch.equal(answers[:, positive], -answers[:, negative])


def test_an_image_and_its_mirror_image_give_compact_the_same_answer(compact):
    images = torch.randn(4, 3, 32, 32)
    compact.see_images(images)
    answers, mirrored = compact.eval()(images), compact(images.flip(-1))
    torch.testing.assert_close(mirrored, answers, atol=1e-4, rtol=1e-4)


def test_a_run_of_compact_keeps_its_filters_and_exports_and_its_namesake_is_refused(
    small_settings, tmp_path
):
    settings = small_settings(model="compact", recipe="best", epochs=1)
    stored = read_checkpoint(train(settings, tmp_path / "run", report=False).model_file)
    filters = stored.state_dict["whiten.weight"]
    assert torch.equal(filters[:6], -filters[6:12])
    again = read_checkpoint(train(settings, tmp_path / "again", report=False).model_file)
    assert torch.equal(again.state_dict["whiten.weight"], filters)
    for form in ("onnx", "torch-export", "safetensors"):
        assert export(tmp_path / "run", form).max_difference < 1e-4
    former = stored.model_copy(update={"state_dict": {OF_FORMER_COMPACT: torch.ones(84)}})
    (tmp_path / "former.pt").write_bytes(pack(former))
    with pytest.raises(CheckpointError, match=r"`compact` until version 0\.1\.0, which is gone"):
        open_trained(tmp_path / "former.pt")
