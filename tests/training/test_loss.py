import pytest
import torch
import torch.nn.functional as F

from cifar_cnn.data.augment import Mix
from cifar_cnn.training.loss import balanced_weights, classification_loss, describe_weights


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
