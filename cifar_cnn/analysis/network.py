"""A network, run once for its analysis."""

import sys
import threading
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy

from cifar_cnn.analysis.calls import Calls
from cifar_cnn.analysis.run import Run
from cifar_cnn.analysis.steps import Value
from cifar_cnn.errors import ModelError, first_few
from cifar_cnn.models.module import parameters_of
from cifar_cnn.models.registry import find_definition
from cifar_cnn.runtime import global_state_kept
from cifar_cnn.storage.network import Network, open_network

_ONE_AT_A_TIME = threading.RLock()
"""Held while a network is changed for its analysis: threads may share one."""

Model = str | nn.Module | Network
"""What `open_network` takes or returns; or the module itself."""


def open_model(model: Model, model_arg: Sequence[str] = ()) -> tuple[str, nn.Module, str | None]:
    """Return the name of a network, its module, and the file of its weights."""
    if isinstance(model, nn.Module):
        return type(model).__name__, model, None
    if isinstance(model, str):
        model = open_network(model, {"model_arg": model_arg} if model_arg else {})
    if model.file is not None:
        return model.settings.model, model.model, str(model.file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = find_definition(model.settings.model, model.settings.model_arg).spec
        return name, model.model, None


@global_state_kept()
def run_network(
    model: nn.Module,
    size: tuple[int, int],
    assume_pointwise: Collection[str] = (),
    *,
    is_strict: bool = True,
) -> tuple[Run, Value]:
    """Run a network in evaluation mode on one image of `size`, (H, W); return the run and output.

    ModelError: the forward cannot run, or be followed if an unknown operation is an error.
    """
    with evaluating(model):
        image = random_image(model, size)
        run = Run(model, image, assume_pointwise, is_strict=is_strict)
        with run.guarded(f"the network cannot take a 3×{size[0]}×{size[1]} image"):
            if any(is_lazy(p) for p in parameters_of(model)):
                with torch.no_grad():
                    model(image)
            with run.running():
                output = model(image)
    if not isinstance(output, Tensor):
        what = type(output).__name__
        if isinstance(output, dict):
            what += f" of {first_few([*map(str, output)])}"
        elif isinstance(output, tuple | list):
            what += f" of {len(output)}"
        raise ModelError(
            f"the network returns a {what}, not one tensor: wrap it in a module "
            "that returns the tensor to analyze"
        )
    value = run.values[output]
    if value is None:
        raise ModelError("the network's output does not depend on its input")
    return run, value


def results_of(model: nn.Module, images: Tensor, numbers: Sequence[int]) -> list[Tensor]:
    """Run a network in evaluation mode; return the results of these calls, then its output.

    The calls have the numbers that a run has given them (`Call.number`).
    """
    calls = Calls(model, keep=numbers)
    with evaluating(model), torch.enable_grad():
        images = images.clone()  # which may be written to in place
        with calls.running():
            output = model(images)
    return [*(calls.kept[number] for number in numbers), output]


def random_image(model: nn.Module, size: tuple[int, int], count: int = 1) -> Tensor:
    """Return images (N, 3, H, W) of the network's dtype and device, the same each time."""
    weight = next(iter(parameters_of(model)), torch.empty(0))
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    image = torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))
    return image.to(weight.device, dtype)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode, and each module back into its own at the end.

    Attention runs on its plain path, whose steps can be seen and counted, and a network that was
    compiled as it is.
    """
    is_compiled = "torch._dynamo" in sys.modules  # which torch.compile imports
    with (
        _ONE_AT_A_TIME,
        warnings.catch_warnings(),
        sdpa_kernel(SDPBackend.MATH),
        torch.compiler.set_stance("force_eager") if is_compiled else nullcontext(),
    ):
        warnings.simplefilter("ignore")  # what a forward warns of is not this tool's news
        training = [module for module in nn.Module.modules(model) if module.training]
        fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            for module in training:
                module.training = False
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            for module in training:
                module.training = True
