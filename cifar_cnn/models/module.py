"""Operations on networks that ignore overridden methods of nn.Module, such as `parameters`."""

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cnn.errors import ModelError
from cifar_cnn.models.guard import guarded
from cifar_cnn.runtime import random_numbers_kept


def parameters_of(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters, each once."""
    return [parameter for _, parameter in nn.Module.named_parameters(model)]


def buffers_of(model: nn.Module) -> list[Tensor]:
    """Return the buffers, each once."""
    return [buffer for _, buffer in nn.Module.named_buffers(model)]


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict."""
    with guarded("the network's state dict cannot be made", ModelError, model):
        return dict(nn.Module.state_dict(model))


def set_training(model: nn.Module, training: bool) -> None:  # noqa: FBT001 - as torch's `train`
    """Set the mode of all modules; also call an overridden `train` that has torch's `mode`."""
    modules = [*nn.Module.modules(model)]
    for module in modules:
        module.training = training
    with guarded(f"the network's train({training}) fails", ModelError, model):
        for module in modules:
            train: Any = type(module).train  # may be an attribute of the author's
            is_own = train is not nn.Module.train and callable(train)
            if is_own and "mode" in inspect.signature(train).parameters:
                module.train(training)


def move(model: nn.Module, device: torch.device, *, channels_last: bool = False) -> nn.Module:
    """Move parameters and buffers to a device, with `channels_last` to that layout too."""
    with guarded(f"the network cannot be moved to {device}", ModelError, model):
        if any(each.device != device for each in (*parameters_of(model), *buffers_of(model))):
            nn.Module.to(model, device)
        return nn.Module.to(model, memory_format=torch.channels_last) if channels_last else model


def copy_network(model: nn.Module) -> nn.Module:
    """Return a deep copy; tensors that `forward` recomputes (pruning) are copied as values."""
    values = (value for module in nn.Module.modules(model) for value in vars(module).values())
    computed = [each for each in values if isinstance(each, Tensor) and not each.is_leaf]
    with guarded("the network cannot be copied", ModelError, model):
        return copy.deepcopy(model, {id(each): each.detach().clone() for each in computed})


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restore tensors, gradients and attributes of the network, and random states at the end."""
    attributes = [vars(module) for module in nn.Module.modules(model)]
    values = [value for each in attributes for value in each.values()]
    containers = [*attributes, *(value for value in values if type(value) in {dict, list})]
    contents = [(container, copy.copy(container)) for container in containers]
    plain = [value for value in values if isinstance(value, Tensor)]
    tensors = [
        (each, each.detach().clone(), each.grad if each.is_leaf else None)
        for each in (*parameters_of(model), *buffers_of(model), *plain)
    ]
    with random_numbers_kept():
        try:
            yield
        finally:
            for container, before in contents:
                container.clear()
                if isinstance(container, dict):
                    container.update(before)
                else:
                    container.extend(before)
            for tensor, value, gradient in tensors:
                if not torch.equal(tensor, value):
                    tensor.detach().copy_(value)
                if tensor.is_leaf:
                    tensor.grad = gradient
