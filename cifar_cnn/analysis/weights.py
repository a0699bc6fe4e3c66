"""Find weights that are not registered as parameters, or that do not affect the output."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from cifar_cnn.analysis.calls import Call
from cifar_cnn.analysis.network import evaluating, random_image, results_of
from cifar_cnn.errors import ModelError
from cifar_cnn.models.module import copy_network, parameters_of

MOST_PIXELS = 8 * 32 * 32
"""Pixels of the images whose gradient tells what has an effect."""

OUTSIDE = (
    "{} holds learned tensors that are not among the network's parameters: keep layers in "
    "nn.ModuleList or nn.ModuleDict, tensors in nn.Parameter"
)


def unregistered(model: nn.Module, read: Mapping[Tensor, str]) -> list[str]:
    """Return where the network keeps learned tensors that `parameters()` lacks.

    Each is an attribute of the network (`blocks`), else the place in its code that reads it.
    """
    owners = {id(t): place for place, tensors in _kept_outside(model) for t in tensors}
    return list(dict.fromkeys(owners.get(id(tensor), place) for tensor, place in read.items()))


def check_registered(model: nn.Module, loss: Tensor) -> None:
    """Refuse a network whose loss comes from learned tensors that are none of its parameters.

    Optimizer and checkpoint would lack them.
    """
    known = {id(tensor) for tensor in parameters_of(model)}
    waiting, seen = [loss.grad_fn], set()
    outside: dict[Tensor, str] = {}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            outside[leaf] = "the network's forward"
    if outside:
        raise ModelError(OUTSIDE.format(", ".join(unregistered(model, outside))))


def _kept_outside(model: nn.Module) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield the attributes of the network's modules that torch does not register."""
    for name, module in nn.Module.named_modules(model):
        for attribute, value in vars(module).items():
            if not attribute.startswith("_"):
                yield f"{name}.{attribute}" if name else attribute, _tensors(value, depth=4)


def _tensors(value: object, depth: int) -> list[Tensor]:
    """Return the tensors in a value: those of a module, or of a container of either."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, nn.Module):
        return [*parameters_of(value)]
    items: Collection[object] = ()
    if isinstance(value, dict):
        items = value.values()
    elif isinstance(value, list | tuple | set):
        items = value
    elif cells := getattr(value, "__closure__", None):
        items = [cell.cell_contents for cell in cells]
    return [tensor for item in items if depth for tensor in _tensors(item, depth - 1)]


def without_effect(
    model: nn.Module, size: tuple[int, int], calls: Sequence[Call]
) -> tuple[list[str], set[Call]]:
    """Find parameters, and results of calls, whose gradient is exactly zero on random images.

    It is taken on a copy whose weights are moved a little, so that weights which begin at zero do
    not count. In a network that cannot be copied or differentiated nothing is found.
    """
    try:
        with evaluating(model):  # no other thread follows it meanwhile
            copied = copy_network(model)
        generator = torch.Generator().manual_seed(0)
        for parameter in parameters_of(copied):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.add_(noise.to(parameter.device, parameter.dtype), alpha=0.01)
        images = random_image(copied, size, max(MOST_PIXELS // (size[0] * size[1]), 1))
        *results, output = results_of(copied, images, [call.number for call in calls])
        score = (output * torch.randn(output.shape, generator=generator).to(output)).sum()
        sources: list[tuple[str | Call, Tensor]] = [
            *nn.Module.named_parameters(copied),
            *zip(calls, results, strict=True),
        ]
        sources = [(source, tensor) for source, tensor in sources if tensor.requires_grad]
        tensors = [tensor for _, tensor in sources]
        gradients: Sequence[Tensor | None] = torch.autograd.grad(score, tensors, allow_unused=True)
    except Exception:  # noqa: BLE001 - the user's code may raise anything
        return [], set()
    dead = [
        (source, tensor)
        for (source, tensor), gradient in zip(sources, gradients, strict=True)
        if gradient is not None and not gradient.any()
    ]
    names = [source for source, tensor in dead if isinstance(source, str) and tensor.dim() > 1]
    return names, {source for source, _ in dead if isinstance(source, Call)}
