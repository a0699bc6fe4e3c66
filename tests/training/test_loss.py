import pytest
import torch
import torch.nn.functional as F

from cifar_cnn.training.loss import classification_loss


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
