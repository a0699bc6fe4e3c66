"""The optimizer of a run."""

import torch
from torch import nn

from cifar_cnn.errors import ModelError
from cifar_cnn.settings import Settings


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Return the optimizer of the settings, fused; weight decay on weights only.

    sgd: with momentum, Nesterov's if asked. adamw: Loshchilov and Hutter, "Decoupled Weight Decay
    Regularization" (2019), with torch's betas. Parameters of fewer than two dimensions are biases
    and normalisations: they do not decay. On CUDA the learning rate is a tensor, so that a captured
    step can read it.

    Raises:
        ModelError: there is nothing to optimize.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError("the network has no parameters to train")
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
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, capturable=on_cuda, fused=True)
    return torch.optim.SGD(
        groups,
        lr=lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        fused=True,
    )
