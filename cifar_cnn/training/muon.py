"""Muon: stochastic gradient descent whose steps of matrices are orthogonal.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). Torch's own
(`torch.optim.Muon`) takes matrices only, not the filters of convolutions.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration, chosen by the source for the steepest slope at 0."""
ITERATIONS = 3
EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum; in groups with `orthogonal`, each step is made orthogonal first.

    There a weight (O, I, ...) is taken as the matrix (O, I·...), its step has all singular values
    near 1, times the root of O over I·... where that is more than 1. Weight decay is decoupled from
    the gradient. `found_inf`, where set and not 0, leaves the weights as they are, as it does
    in torch's fused optimizers.

    Args:
        groups: of parameters, each with `weight_decay` and `orthogonal`.
        lr: learning rate, a tensor where a captured step has to read it.
        momentum: share of the last step that is kept.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float | Tensor, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum})
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            lr = group["lr"] if self.found_inf is None else group["lr"] * (1 - self.found_inf)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group, lr)

    def _update(
        self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], lr: float | Tensor
    ) -> None:
        if self.found_inf is not None:
            gradient = torch.where(self.found_inf > 0, 0.0, gradient)
        momentum, state = group["momentum"], self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average = state["momentum_buffer"].mul_(momentum).add_(gradient)
        change = gradient.add(average, alpha=momentum)
        if group["orthogonal"]:
            matrix = change.flatten(1)
            scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
            change = scale * orthogonal(matrix).view_as(change)
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.sub_(lr * change)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return (O, I) with the singular vectors of `matrix` and singular values of about 1.

    Newton and Schulz's iteration, in the type of the matrix: with X X^T = A, X becomes
    a·X + (b·A + c·A²)·X (Jordan et al., 2024).
    """
    a, b, c = COEFFICIENTS
    result: Tensor = matrix / (matrix.norm() + EPSILON)
    tall = result.shape[0] > result.shape[1]
    if tall:
        result = result.t()
    for _ in range(ITERATIONS):
        gram = result @ result.t()
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        result = torch.addmm(result, polynomial, result, beta=a)
    return result.t() if tall else result
