import pytest
import torch

from cifar_cnn import (
    Budget,
    build_model,
    export,
    receptive_field,
    resolve_settings,
    summarize,
    verify,
)
from cifar_cnn.inference.checkpoint import Checkpoint, write_checkpoint
from cifar_cnn.models.compact import MultiScaleConv


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("compact")


def test_the_brief_is_met_with_all_of_its_budget_used():
    summary = summarize("compact", budget=Budget())
    assert summary.parameters == 195_116
    assert summary.budget.passed
    assert len(summary.budget.requirements) == 5


def test_its_receptive_field_is_proved_by_the_gradient():
    assert receptive_field("compact").final == (139, 139)
    assert verify("compact").agreed


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (9, 9)])
def test_logits_for_images_of_any_size(model, size):
    images = torch.randn(2, 3, *size)
    assert model.eval()(images).shape == (2, 10)
    assert build_model("compact", 7)(images).shape == (2, 7)


def test_the_gradient_reaches_every_parameter(model):
    model.train()
    loss = torch.nn.functional.cross_entropy(model(torch.randn(8, 3, 32, 32)), torch.arange(8))
    loss.backward()
    for name, parameter in model.named_parameters():
        size = parameter.grad.abs().max()
        assert torch.isfinite(size), name
        assert size > 0, name
    model.zero_grad()


def test_each_quarter_of_the_channels_is_filtered_at_its_own_scale():
    filters = MultiScaleConv(8)
    for parameter in filters.parameters():
        torch.nn.init.ones_(parameter)
    images = torch.zeros(1, 8, 15, 15)
    images[:, :, 7, 7] = 1
    places = [channel.nonzero() - 7 for channel in filters(images)[0]]
    assert [int(each.abs().max()) for each in places] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [len(each) for each in places] == [1, 1, 9, 9, 25, 25, 9, 9]


def test_bf16_on_the_cpu_gives_nearly_the_same_answers(model):
    images = torch.randn(4, 3, 32, 32)
    exact = model.eval()(images)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(images).float(), exact, atol=0.05, rtol=0.05)


def test_it_can_be_exported(model, tmp_path):
    checkpoint = Checkpoint(
        model="compact",
        classes=tuple("abcdefghij"),
        settings=resolve_settings({"model": "compact", "precision": "fp32"}),
        metrics={},
        state_dict=dict(model.state_dict()),
    )
    write_checkpoint(tmp_path / "compact.pt", checkpoint)
    assert export(tmp_path / "compact.pt", "onnx").max_difference < 1e-4


def test_dropout_is_before_the_classifier():
    model = build_model("compact", dropout=0.25)
    assert model.dropout.p == 0.25
