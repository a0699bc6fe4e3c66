"""One step: its loss, its totals, and what it does where a number is not finite."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_cnn.data.augment import Mix
from cifar_cnn.errors import RunError
from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.distributed import ALONE
from cifar_cnn.training.step import (
    TrainingStep,
    balanced_weights,
    classification_loss,
    describe_weights,
)
from cifar_cnn.training.update import remember


def make_step(model=None, **settings):
    settings = resolve_settings({"precision": "fp32", **settings})
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.BatchNorm1d(3))
    step = TrainingStep(settings, model)
    step.prepare(0, 0.1, ALONE.part(5))
    return step


def batch(count=5):
    source = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 2, 2, generator=source), torch.arange(count) % 3


def everything(step):
    state = [value for s in step.optimizer.state.values() for value in s.values()]
    tensors = [*step.model.state_dict().values(), *state, step.totals.values]
    return [tensor.clone() for tensor in tensors]


def test_totals_count_images_losses_and_right_answers():
    step = make_step()
    images, labels = batch()
    loss, correct = (value.item() for value in step.forward(images, labels))
    step.update(images, labels)
    totals = step.totals.read()
    assert (totals.samples, totals.correct, totals.failed_step) == (5, correct, -1)
    assert totals.loss == pytest.approx(5 * loss, rel=1e-6)
    assert totals.last_loss == pytest.approx(loss, rel=1e-6)


class Overflowing(nn.Module):
    """A finite loss whose gradient is infinite: sqrt at 0."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(3))

    def forward(self, images):
        return self.scale.sqrt() + images.mean(dim=(1, 2, 3))[:, None]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_noted(optimizer):
    step = make_step(Overflowing(), optimizer=optimizer)
    step.prepare(7, 0.1, ALONE.part(5))
    images, labels = batch()
    step.update(images, labels)
    totals = step.totals.read()
    assert step.model.scale.tolist() == [0, 0, 0]
    assert (totals.failed_step, totals.samples, totals.loss) == (7, 0, 0)
    assert totals.failed_loss == pytest.approx(1.0986, abs=1e-4)


def test_only_the_first_failed_step_is_noted():
    step = make_step()
    images, labels = batch()
    step.update(images, labels)
    before = [p.clone() for p in step.model.parameters()]
    for number in (1, 2):
        step.prepare(number, 0.1, ALONE.part(5))
        step.update(images * float("nan"), labels)
    assert step.totals.read().failed_step == 1
    assert all(torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_warm_up_is_taken_back(optimizer):
    """What a CUDA graph's capture needs: the steps after it are those of a run without it."""
    images, labels = batch()
    plain, warmed = make_step(optimizer=optimizer), make_step(optimizer=optimizer)
    plain.update(images, labels)
    for steps in (1, 3):
        restore = remember(warmed)
        for _ in range(steps):
            warmed.update(images + 1, labels)
        restore()
    warmed.update(images, labels)
    restore = remember(warmed)
    warmed.update(images + 1, labels)
    restore()
    for got, expected in zip(everything(warmed), everything(plain), strict=True):
        assert torch.equal(got, expected)


class Greedy(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, images):
        return self.scale * torch.empty(len(images), 1 << 50)


def test_no_memory_is_one_line_with_a_smaller_batch():
    step = make_step(Greedy(), batch_size=64)
    with pytest.raises(RunError, match=r"out of memory on cpu .* of 5 images: try --batch-size 32"):
        step.update(*batch())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_it_is_torchs_cross_entropy_with_label_smoothing(smoothing):
    logits, labels = torch.randn(9, 5), torch.randint(0, 5, (9,))
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(
        classification_loss(logits.log_softmax(dim=1), labels, smoothing), expected
    )


def test_without_smoothing_it_is_the_negative_log_likelihood_to_the_bit():
    output, labels = torch.randn(9, 5).log_softmax(dim=1), torch.randint(0, 5, (9,))
    assert torch.equal(classification_loss(output, labels, 0.0), F.nll_loss(output, labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_images_have_the_labels_of_both_by_their_shares(smoothing):
    logits, labels = torch.randn(3, 5), torch.tensor([0, 4, 2])
    mix = Mix(torch.tensor([1, 2, 0]), torch.tensor([0.25, 0.0, 0.5]))
    targets = torch.zeros(3, 5)
    for row, column, share in [(0, 0, 0.75), (0, 4, 0.25), (1, 4, 1), (2, 2, 0.5), (2, 0, 0.5)]:
        targets[row, column] += share
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    loss = classification_loss(logits.log_softmax(dim=1), labels, smoothing, mix)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_class_weights_count_as_in_torchs_cross_entropy_with_targets(smoothing, mixed):
    logits, labels = torch.randn(3, 3), torch.tensor([0, 2, 2])
    weights = torch.tensor([0.5, 1.0, 4.0])
    mix = Mix(torch.tensor([1, 2, 0]), torch.tensor([0.25, 0.0, 0.5])) if mixed else None
    targets = F.one_hot(labels, 3).float()
    if mix:
        targets = targets.lerp(targets[mix.partner], mix.fraction[:, None])
    expected = F.cross_entropy(logits, targets, weights, label_smoothing=smoothing)
    loss = classification_loss(logits.log_softmax(dim=1), labels, smoothing, mix, weights)
    torch.testing.assert_close(loss, expected)


def test_balanced_weights_are_those_of_scikit_learn_and_none_for_a_class_without_images():
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    weights = balanced_weights(labels, 4)
    assert weights.tolist() == pytest.approx([10 / (3 * 6), 10 / (3 * 3), 0, 10 / (3 * 1)])
    assert float(weights[labels].mean()) == pytest.approx(1)


def test_weights_of_many_classes_are_one_line_with_both_ends():
    names = [f"c{index}" for index in range(100)]
    assert describe_weights(torch.tensor([0.5, 2]), ["a", "b"]) == "class weights: a 0.5, b 2"
    said = describe_weights(torch.arange(1, 101) / 10, names)
    assert said == "class weights: from 0.1 (c0) to 10 (c99)"
