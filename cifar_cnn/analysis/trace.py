"""From a module to the graph of its operations, by one run on fake tensors.

Fake tensors have a shape and no data: nothing is computed and no weights are needed. The run
follows whatever Python the network's forward holds, decisions on shapes included; a decision on
the values in a tensor has no answer there, and is the user's error to hear about.
"""

import inspect
import logging
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy

from cifar_cnn.analysis.calls import forwards_as_calls
from cifar_cnn.analysis.graph import Graph
from cifar_cnn.analysis.recorder import Recorder
from cifar_cnn.analysis.source import raised_at
from cifar_cnn.errors import ModelError, one_line
from cifar_cnn.models import build_model
from cifar_cnn.models.registry import full_spec
from cifar_cnn.runtime import global_state_kept

Model = str | nn.Module
"""A built-in name, `module:attr` or `path.py:attr`; or the module itself."""


@global_state_kept()
def follow(
    model: Model,
    input_size: tuple[int, int],
    known: Collection[str] | None,
    model_arg: Sequence[str] = (),
) -> tuple[str, nn.Module, Graph]:
    """Return the network's name, the network and its graph, without weights where that can be.

    Raises:
        ModelError: the network cannot be found, built, run or followed.
    """
    if isinstance(model, nn.Module):
        return type(model).__name__, model, trace(model, input_size, known)
    name = full_spec(model, model_arg)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that copying into no memory does nothing
            module = build_model(model, model_arg=model_arg, device="meta")
    except ModelError as error:
        if "meta" not in str(error.__cause__).lower():
            raise  # it would fail again
        # a constructor that reads its own weights needs them to be there
        module = build_model(model, model_arg=model_arg)
    if _needs_numbers(module):
        module = build_model(model, model_arg=model_arg)
    try:
        return name, module, trace(module, input_size, known)
    except ModelError as error:
        if "meta" not in str(error.__cause__):
            raise
    # it has tensors of its own, on a device where there are numbers
    module = build_model(model, model_arg=model_arg)
    return name, module, trace(module, input_size, known)


def trace(
    model: nn.Module,
    input_size: tuple[int, int],
    known: Collection[str] | None,
    *,
    partial: bool = False,
) -> Graph:
    """Run `model`, in evaluation mode, on a fake (1, 3, H, W) image and return its graph.

    With `partial`, a network that cannot take the size gives the operations up to there.

    Raises:
        ModelError: the forward cannot run or be followed; one line saying what and where.
    """
    _check_one_input(model)
    _initialize(model, input_size)
    with fake_image(model, input_size) as image:
        recorder = Recorder(model, image, known)
        try:
            with recorder.running():
                output = model(image)
        except ModelError:
            raise
        except Exception as error:  # the user's forward may raise anything
            if partial:
                return recorder.graph
            raise _explain(error, recorder, input_size) from error
        recorder.graph.output = recorder.value_of_output(output)
        return recorder.graph


@contextmanager
def fake_image(model: nn.Module, input_size: tuple[int, int]) -> Iterator[Tensor]:
    """Give a fake (1, 3, H, W) image; the model is in evaluation mode, and what it makes is fake.

    The image wants a gradient, so that what comes from it shows.
    """
    weight = next(model.parameters(), torch.empty(0))
    device = weight.device
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with evaluating(model), _quiet(), _plain_attention(), fake, device, torch.enable_grad():
        leaf = torch.empty(1, 3, *input_size, dtype=dtype, requires_grad=True)
        yield leaf.clone()  # a copy may be written to in place


def _explain(error: Exception, recorder: Recorder, size: tuple[int, int]) -> ModelError:
    module = recorder.module_name()
    where = f"in {module or 'its forward'} ({raised_at(error.__traceback__)})"
    if isinstance(error, DataDependentOutputException | DynamicOutputShapeException):
        return ModelError(
            f"the network decides by the values in a tensor {where}: "
            "what it computes cannot be known without an image"
        )
    return ModelError(
        f"the network cannot take a 3×{size[0]}×{size[1]} image: {type(error).__name__} {where}: "
        f"{one_line(error)}"
    )


def _needs_numbers(model: nn.Module) -> bool:
    """Whether its tensors' numbers may decide what is read: indices, or shapes to come."""
    return any(is_lazy(p) for p in model.parameters()) or any(
        buffer.is_meta and buffer.dim() == 1 and not buffer.is_floating_point()
        for buffer in model.buffers()
    )


def _initialize(model: nn.Module, size: tuple[int, int]) -> None:
    """Run a network once whose lazy layers learn their shapes from their first image."""
    if not any(is_lazy(p) for p in model.parameters()):
        return
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros(1, 3, *size))
    except Exception as error:  # the user's forward may raise anything
        raise ModelError(
            f"the network cannot take a 3×{size[0]}×{size[1]} image: {type(error).__name__}: "
            f"{one_line(error)}"
        ) from error


def _check_one_input(model: nn.Module) -> None:
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ModelError(
            f"{type(model).__name__} holds a scripted network (TorchScript), whose operations "
            "cannot be followed: give the module that was scripted"
        )
    required = [
        p.name
        for p in inspect.signature(model.forward).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(required) > 1:
        raise ModelError(
            f"{type(model).__name__}.forward takes {len(required)} inputs "
            f"({', '.join(required)}): only networks of one image tensor can be analyzed"
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode, and each module back into its own at the end.

    Hooks hear of every module meanwhile, also of one that runs as `module.forward(x)`.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with forwards_as_calls(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a forward warns of is not this tool's news
            with _uncompiled():
                yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run what torch.compile was given as it is; that it was used shows by what it imports."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep attention from its fused paths, whose steps cannot be seen or counted."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging the traceback of an error that the user hears of in one line."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was_disabled
