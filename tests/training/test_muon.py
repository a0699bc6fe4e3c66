import pytest
import torch

from cifar_cnn.training.optimizer import Muon, orthogonal


@pytest.mark.parametrize("shape", [(64, 576), (128, 80), (48, 48)])
def test_orthogonal_keeps_the_singular_vectors_and_evens_the_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    projected = left.T @ orthogonal(matrix) @ right.T
    assert torch.allclose(projected, projected.diag().diag(), atol=1e-10)
    large = projected.diag()[values > 0.1 * values.max()]
    assert large.min() > 0.4
    assert large.max() < 1.3


def make(orthogonal_steps, momentum=0.5, weight_decay=0.0):
    weight = torch.nn.Parameter(torch.ones(2, 2, 1, 1))
    group = {"params": [weight], "weight_decay": weight_decay, "orthogonal": orthogonal_steps}
    return weight, Muon([group], lr=0.1, momentum=momentum)


def test_what_is_not_orthogonal_steps_as_torch_s_nesterov_sgd_does():
    weight, muon = make(orthogonal_steps=False)
    plain = torch.nn.Parameter(weight.detach().clone())
    sgd = torch.optim.SGD([plain], lr=0.1, momentum=0.5, nesterov=True)
    for step in range(3):
        weight.grad = torch.full_like(weight, 1.0 + step)
        plain.grad = weight.grad.clone()
        muon.step()
        sgd.step()
    torch.testing.assert_close(weight, plain)


def test_an_orthogonal_step_has_the_size_of_the_learning_rate_whatever_the_gradient():
    sizes = []
    for scale in (1e-3, 1e3):
        weight, muon = make(orthogonal_steps=True)
        weight.grad = scale * torch.tensor([[3.0, 1.0], [0.0, 2.0]]).view(2, 2, 1, 1)
        muon.step()
        sizes.append((1 - weight.detach()).norm())
    assert sizes[0] == pytest.approx(sizes[1].item(), rel=1e-3)
    assert 0.1 * 2**0.5 * 0.6 < sizes[0] < 0.1 * 2**0.5 * 1.3


@pytest.mark.parametrize("orthogonal_steps", [True, False])
def test_weights_decay_apart_from_the_gradient(orthogonal_steps):
    weight, muon = make(orthogonal_steps, weight_decay=0.5)
    weight.grad = torch.zeros_like(weight)
    muon.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2, 1, 1), 1 - 0.1 * 0.5))


@pytest.mark.parametrize("orthogonal_steps", [True, False])
def test_a_step_that_failed_leaves_the_weights(orthogonal_steps):
    weight, muon = make(orthogonal_steps)
    muon.found_inf = torch.tensor(1.0)
    weight.grad = torch.full_like(weight, float("nan"))
    muon.step()
    assert torch.equal(weight, torch.ones(2, 2, 1, 1))
    muon.found_inf = torch.tensor(0.0)
    weight.grad = torch.ones_like(weight)
    muon.step()
    assert torch.isfinite(weight).all()
    assert not torch.equal(weight, torch.ones(2, 2, 1, 1))
