"""The path of a step on CUDA, on torch's fake tensors: shapes and devices without numbers.

A fake tensor fails where tensors of two devices meet, and where a number would have to be read, for
which a real device would be waited for. Left out: backward, the update itself, autocast and
capturing, which need a driver; the affine augmentation, which chooses images by numbers that it
reads on the CPU.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from cifar_cnn.data.dataset import Split
from cifar_cnn.models import build_model
from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.distributed import ALONE, Processes
from cifar_cnn.training.trainer import Trainer

DEVICE = torch.device("cuda", 0)
COUNT = 300


def move(model, device=None, memory_format=torch.preserve_format):
    """Do what `nn.Module.to` does, which fake parameters cannot."""
    for module in model.modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, value in own:
            moved = value.detach().to(device or value.device)
            if value.ndim == 4:
                moved = moved.clone(memory_format=memory_format)
            setattr(module, name, nn.Parameter(moved) if isinstance(value, nn.Parameter) else moved)
    return model


class Optimizer:
    """Has a learning rate on the device and says what it would leave out."""

    found_inf = None

    def __init__(self, model, _settings):
        self.model = model
        lr = torch.zeros((), device=DEVICE)
        self.param_groups = [{"lr": lr, "params": list(model.parameters())}]

    def zero_grad(self):
        pass

    def step(self):
        assert all(each.grad.device == DEVICE for each in self.model.parameters())
        assert self.found_inf.device == DEVICE


@pytest.fixture
def trainer(monkeypatch):
    """Return a trainer on a device that is not there, in the mode that makes it."""

    made = []

    def make(**overrides):
        settings = resolve_settings({"dataset": "synthetic", "precision": "fp32", **overrides})
        images = torch.zeros(COUNT, 3, 32, 32, dtype=torch.uint8)
        split = Split(images, torch.zeros(COUNT, dtype=torch.int64), tuple("abcdefghij"))
        model = build_model(settings.model, 10, settings.dropout)
        made.append(Trainer(settings, model, split, split, Processes(DEVICE)))
        return made[0]

    def backward(loss):
        assert loss.device == DEVICE
        for parameter in made[0].model.parameters():
            parameter.grad = torch.empty_like(parameter)

    monkeypatch.setattr(nn.Module, "to", move)
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr("cifar_cnn.training.step.make_optimizer", Optimizer)
    with FakeTensorMode():
        yield make


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"recipe": "reference", "affine": 0},
        {"recipe": "best", "model": "compact"},
        {"cutout": 0.5, "rotation": 10, "color_jitter": 0.2, "mixup": 0.3},
    ],
    ids=["tuned", "reference", "best", "everything"],
)
def test_a_step_stays_on_the_device_and_waits_for_nothing(trainer, overrides):
    one = trainer(**overrides)
    one.model.train()
    for step in range(2):
        images, labels, mix = one.batches.at(0, step)
        assert images.device == labels.device == DEVICE
        assert images.is_contiguous(memory_format=torch.channels_last)
        one.training_step.prepare(step, 0.1, ALONE.part(64))
        one.training_step.update(images, labels, mix)
    assert one.training_step.totals.values.device == DEVICE
    with pytest.raises(DataDependentOutputException):  # as reading anything above would have
        one.training_step.totals.read()
