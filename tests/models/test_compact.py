import pytest
import torch
import torch.nn.functional as F

from cifar_cnn import (
    Budget,
    build_model,
    export,
    receptive_field,
    resolve_settings,
    summarize,
    train,
    verify,
)
from cifar_cnn.errors import CheckpointError
from cifar_cnn.inference.trained import open_trained
from cifar_cnn.models.compact import Whitening
from cifar_cnn.storage.checkpoint import (
    OF_FORMER_COMPACT,
    Checkpoint,
    pack,
    read_checkpoint,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model("compact")


def test_the_brief_is_met_and_its_receptive_field_proved():
    summary = summarize("compact", budget=Budget())
    assert summary.totals.parameters == 186_288
    assert summary.budget.passed
    assert receptive_field("compact").final.receptive_field == (90, 90)
    assert verify("compact").agreed


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (16, 16)])
def test_logits_for_images_of_any_size(model, size):
    images = torch.randn(2, 3, *size)
    assert model.eval()(images).shape == (2, 10)
    assert build_model("compact", 7)(images).shape == (2, 7)


def test_the_gradient_reaches_every_parameter_that_learns(model):
    model.train()
    F.cross_entropy(model(torch.randn(8, 3, 32, 32)), torch.arange(8)).backward()
    for name, parameter in model.named_parameters():
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


def test_an_image_and_its_mirror_image_give_the_same_answer(model):
    images = torch.randn(4, 3, 32, 32)
    model.see_images(images)
    answers, mirrored = model.eval()(images), model(images.flip(-1))
    torch.testing.assert_close(mirrored, answers, atol=1e-4, rtol=1e-4)


def test_a_run_whitens_by_its_training_images_and_keeps_the_filters(small_settings, tmp_path):
    settings = small_settings(model="compact", recipe="best", epochs=1)
    run = train(settings, tmp_path / "run", report=False).run
    kept = read_checkpoint(run / "model.pt").state_dict["whiten.weight"]
    assert torch.equal(kept[:6], -kept[6:12])
    again = train(settings, tmp_path / "again", report=False).run
    assert torch.equal(read_checkpoint(again / "model.pt").state_dict["whiten.weight"], kept)


def test_bf16_on_the_cpu_gives_nearly_the_same_answers(model):
    images = torch.randn(4, 3, 32, 32)
    exact = model.eval()(images)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(images).float(), exact, atol=0.05, rtol=0.05)


def test_it_can_be_exported_and_what_was_called_compact_before_is_refused(model, tmp_path):
    checkpoint = Checkpoint(
        model="compact",
        classes=tuple("abcdefghij"),
        settings=resolve_settings({"model": "compact", "precision": "fp32"}),
        metrics={},
        state_dict=dict(model.state_dict()),
    )
    file = tmp_path / "compact.pt"
    file.write_bytes(pack(checkpoint))
    for form in ("onnx", "torch-export", "safetensors"):
        assert export(file, form).max_difference < 1e-4
    former = checkpoint.model_copy(update={"state_dict": {OF_FORMER_COMPACT: torch.ones(84)}})
    file.write_bytes(pack(former))
    with pytest.raises(CheckpointError, match=r"`compact` until version 0\.1\.0, which is gone"):
        open_trained(file)
