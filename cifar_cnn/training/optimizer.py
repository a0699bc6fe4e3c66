"""The optimizer of a run."""

from typing import Any

import torch
from torch import Tensor, nn

from cifar_cnn.errors import ModelError
from cifar_cnn.settings import Settings
from cifar_cnn.training.muon import Muon


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Return the optimizer of the settings, fused; weight decay on weights only.

    sgd: with momentum, Nesterov's if asked. muon: orthogonal steps for convolutions that mix
    channels, which alone decay; for the rest SGD with Nesterov momentum (`training/muon.py`).
    adamw: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), with torch's
    betas. Parameters of fewer than two dimensions are biases and normalizations: they do not decay.
    On CUDA the learning rate is a tensor, so that a captured step can read it.

    Raises:
        ModelError: there is nothing to optimize, or something that is no real number.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError("the network has no parameters to train")
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise ModelError(
                f"parameter {name} is {parameter.dtype}, only real ones can be trained: "
                "hold its real and imaginary part as two"
            )
    weights = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    device = parameters[0].device
    on_cuda = device.type == "cuda"
    lr = torch.tensor(settings.lr, device=device) if on_cuda else settings.lr
    if settings.optimizer == "muon":
        return _make_muon(parameters, lr, settings)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, capturable=on_cuda, fused=True)
    return torch.optim.SGD(
        groups,
        lr=lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        fused=True,
    )


def _make_muon(parameters: list[nn.Parameter], lr: float | Tensor, settings: Settings) -> Muon:
    mixing = [p for p in parameters if p.ndim == 4 and p.shape[1] > 1]
    others = [p for p in parameters if not (p.ndim == 4 and p.shape[1] > 1)]
    groups = [
        {"params": mixing, "weight_decay": settings.weight_decay, "orthogonal": True},
        {"params": others, "weight_decay": 0.0, "orthogonal": False},
    ]
    return Muon([group for group in groups if group["params"]], lr, settings.momentum)


def load_optimizer(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """Give the optimizer another one's momenta; learning rate and the like are the settings'.

    Raises:
        Exception: of any kind, where the state is not that of these parameters.
    """
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state_dict["state"], "param_groups": groups})
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape not in {parameter.shape, ()}:
                raise ValueError(f"{name} is not of its parameter's shape")
            if not isinstance(value, Tensor | None):
                raise TypeError(f"{name} is no tensor")
