"""Optimizers and learning rate schedules: one entry each in `OPTIMIZERS` and `SCHEDULES`."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cifar_cnn.errors import ModelError, counted
from cifar_cnn.models.module import parameters_of
from cifar_cnn.settings import Settings

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of Muon's quintic iteration, chosen by its source for the steepest slope at 0."""
ITERATIONS = 3
EPSILON = 1e-7
WARM_UP = 0.25
"""Fraction of a one-cycle run in which the learning rate rises."""


def make_optimizer(model: nn.Module, settings: Settings) -> Optimizer:
    """Return the optimizer that the settings name, for the trainable parameters.

    On CUDA its learning rate is a tensor, so that a captured step can read it.
    """
    parameters = [p for p in parameters_of(model) if p.requires_grad]
    if not parameters:
        raise ModelError("the network has no parameters to train")
    for name, parameter in nn.Module.named_parameters(model):
        if not parameter.is_floating_point():
            raise ModelError(
                f"parameter {name} is {parameter.dtype}, only real ones can be trained: "
                "hold its real and imaginary part as two"
            )
    device = parameters[0].device
    lr = torch.tensor(settings.lr, device=device) if device.type == "cuda" else settings.lr
    return OPTIMIZERS[settings.optimizer](parameters, lr, settings)


def load_optimizer(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """Load another optimizer's momenta, but keep the learning rate and other hyperparameters."""
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state_dict["state"], "param_groups": groups})
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape not in {parameter.shape, ()}:
                raise ValueError(f"{name} is not of its parameter's shape")
            if not isinstance(value, Tensor | None):
                raise TypeError(f"{name} is no tensor")


class Muon(Optimizer):
    """SGD with Nesterov momentum; in groups with `orthogonal`, each step is made orthogonal first.

    There a weight (O, I, ...) is taken as the matrix (O, I·...), its step has all singular values
    near 1, times the root of O over I·... where that is more than 1. Weight decay is decoupled from
    the gradient. `found_inf`, where set and not 0, leaves the weights as they are, as it does
    in torch's fused optimizers.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). Torch's
    own (`torch.optim.Muon`) takes matrices only, not the filters of convolutions.
    """

    found_inf: Tensor | None = None

    def __init__(self, groups: list[dict[str, Any]], lr: float | Tensor, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            lr = torch.as_tensor(group["lr"])
            if self.found_inf is not None:
                lr = lr * (1 - self.found_inf)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group, lr)

    def _update(
        self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], lr: Tensor
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


def _sgd(parameters: list[nn.Parameter], lr: float | Tensor, settings: Settings) -> Optimizer:
    """SGD with momentum, Nesterov's if the settings say so."""
    optimizer = torch.optim.SGD(
        _decaying(parameters, settings),
        lr=lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        fused=True,
    )
    if settings.momentum:  # else a parameter whose first gradient comes late ends the fused step
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _adamw(parameters: list[nn.Parameter], lr: float | Tensor, settings: Settings) -> Optimizer:
    """Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), with torch's betas."""
    groups, capturable = _decaying(parameters, settings), isinstance(lr, Tensor)
    return torch.optim.AdamW(groups, lr=lr, capturable=capturable, fused=True)


def _muon(parameters: list[nn.Parameter], lr: float | Tensor, settings: Settings) -> Optimizer:
    """Muon for dense convolutions, with weight decay; SGD for all other parameters."""
    mixing = [p for p in parameters if p.ndim == 4 and p.shape[1] > 1]
    others = [p for p in parameters if not (p.ndim == 4 and p.shape[1] > 1)]
    groups = [
        {"params": mixing, "weight_decay": settings.weight_decay, "orthogonal": True},
        {"params": others, "weight_decay": 0.0, "orthogonal": False},
    ]
    return Muon([group for group in groups if group["params"]], lr, settings.momentum)


def _decaying(parameters: list[nn.Parameter], settings: Settings) -> list[dict[str, Any]]:
    """Group the parameters: biases and normalizations, of one dimension or none, do not decay."""
    weights = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


Maker = Callable[[list[nn.Parameter], float | Tensor, Settings], Optimizer]
OPTIMIZERS: dict[str, Maker] = {"sgd": _sgd, "adamw": _adamw, "muon": _muon}


def learning_rate(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0 over the whole run."""
    return SCHEDULES[settings.scheduler](settings, step, steps_per_epoch)


def describe_new_length(old: Settings, new: Settings, step: int, steps_per_epoch: int) -> str:
    """Describe how the learning rate at `step` changes with a resumed run's new epoch count."""
    become = "becomes" if old.epochs == 1 else "become"
    change = f"{counted(old.epochs, 'epoch')} {become} {new.epochs:,}"
    if new.scheduler in {"constant", "step"}:
        return f"{change}: the {new.scheduler} learning rate goes on as it was"
    last = learning_rate(old, min(step, old.epochs * steps_per_epoch - 1), steps_per_epoch)
    following = learning_rate(new, min(step, new.epochs * steps_per_epoch - 1), steps_per_epoch)
    return (
        f"{change}: the {new.scheduler} learning rate is laid over all {new.epochs} anew and goes "
        f"on at {following:.3g}, where the old one was at {last:.3g}"
    )


def _constant(settings: Settings, _step: int, _steps_per_epoch: int) -> float:
    """`lr`."""
    return settings.lr


def _step(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """`lr` times `gamma` for every `step_size` epochs gone by."""
    drops = step // steps_per_epoch // settings.step_size
    return math.prod([settings.gamma] * drops, start=settings.lr)


def _cosine(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """From `lr` to `lr` times `lr_floor` along half a cosine, after a warm-up.

    Loshchilov and Hutter, "SGDR" (2017), equation 5, without restarts; times a straight line from
    0 to 1 over the first `warmup_epochs` (Goyal et al., "Accurate, Large Minibatch SGD", 2017,
    section 2.2).
    """
    falling = (1 + math.cos(math.pi * _progress(settings, step, steps_per_epoch))) / 2
    rate = settings.lr * (settings.lr_floor + (1 - settings.lr_floor) * falling)
    warm_up = settings.warmup_epochs * steps_per_epoch
    return rate * (step + 0.5) / warm_up if step + 0.5 < warm_up else rate


def _onecycle(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """Up to `lr` in a straight line over the first quarter and down to 0 over the rest.

    Smith and Topin, "Super-Convergence" (2018), section 3.
    """
    progress = _progress(settings, step, steps_per_epoch)
    return settings.lr * min(progress / WARM_UP, (1 - progress) / (1 - WARM_UP))


def _progress(settings: Settings, step: int, steps_per_epoch: int) -> float:
    return (step + 0.5) / (settings.epochs * steps_per_epoch)


SCHEDULES: dict[str, Callable[[Settings, int, int], float]] = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
    "onecycle": _onecycle,
}
