import pytest
import torch
import torch.nn.functional as F

from cifar_cnn.data.mixup import Mix
from cifar_cnn.training.step import classification_loss


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
