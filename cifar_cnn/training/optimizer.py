"""The optimizer of a run."""

import torch
from torch import nn

from cifar_cnn.errors import ModelError
from cifar_cnn.settings import Settings


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.SGD:
    """Return SGD with momentum (Nesterov's if asked); weight decay on weights only.

    Parameters of fewer than two dimensions are biases and normalisations: they do not decay. On
    CUDA the learning rate is a tensor, so that a captured step can read it.

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
    device = parameters[0].device
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=torch.tensor(settings.lr, device=device) if device.type == "cuda" else settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        fused=True,
    )
