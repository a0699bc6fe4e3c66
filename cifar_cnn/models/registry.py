"""How a name becomes a network."""

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from cifar_cnn.errors import ModelError, did_you_mean, one_line
from cifar_cnn.models.baseline import Baseline
from cifar_cnn.models.compact import Compact

BUILT_IN: dict[str, Callable[..., nn.Module]] = {"baseline": Baseline, "compact": Compact}


def build_model(
    spec: str, num_classes: int = 10, dropout: float = 0.0, *, device: str = "cpu"
) -> nn.Module:
    """Build the network that `spec` names.

    Args:
        spec: a built-in name (`baseline`), `module:attr`, or `path.py:attr`. The last two name a
            class or factory without required arguments; modules are looked for in the current
            folder too.
        num_classes: outputs of a built-in network; the user's own keep what they have.
        dropout: dropout probability of a built-in network.
        device: where the weights are made; `meta` gives shapes without memory.

    Raises:
        ModelError: the name is unknown, or what it names cannot be imported or built.
    """
    check_spec(spec)
    if spec in BUILT_IN:
        with torch.device(device):
            return BUILT_IN[spec](num_classes=num_classes, dropout=dropout)
    factory = _load_attribute(spec)
    with torch.device(device):
        return _construct(spec, factory)


def check_spec(spec: str) -> None:
    """Refuse what names no network at first sight, before anything is loaded for it.

    Raises:
        ModelError: it is no built-in name, nor of the form of the others, or its file is missing.
    """
    source, colon, _ = spec.rpartition(":")
    if not colon and spec not in BUILT_IN:
        known = ", ".join(BUILT_IN)
        raise ModelError(
            f"unknown model {spec!r}{did_you_mean(spec, BUILT_IN)}: "
            f"give one of {known}, or module:attr, or path.py:attr"
        )
    if source.endswith(".py") and not Path(source).is_file():
        raise ModelError(f"model file {source} does not exist")


def is_built_in(spec: str) -> bool:
    """Say whether `spec` names one of the tool's own networks (no code of the user's runs)."""
    return spec in BUILT_IN


def is_own(model: nn.Module) -> bool:
    """Say whether `model` is one of the tool's own networks, which keep nothing between layers."""
    return isinstance(model, (Baseline, Compact))


def _load_attribute(spec: str) -> object:
    source, _, attribute = spec.rpartition(":")
    try:
        module = _import_path(source) if source.endswith(".py") else _import_module(source)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise ModelError(
            f"model {spec!r}: importing {source} failed: {type(error).__name__}: {one_line(error)}"
        ) from error
    target: object = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            hint = did_you_mean(part, dir(target))
            raise ModelError(f"model {spec!r}: {source} has no {attribute!r}{hint}")
        target = getattr(target, part)
    return target


def _import_module(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _import_path(path: str) -> ModuleType:
    file = Path(path).resolve()
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))  # the file may import its neighbors
    return _run_file(file, file.stat().st_mtime_ns)


@functools.cache
def _run_file(file: Path, changed_at: int) -> ModuleType:
    """Import a file once for each time it was changed, however often its network is asked for."""
    name = f"cifar_cnn_user_{file.stem}"  # prefixed: the file may be called random.py
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import would: dataclasses look it up
    spec.loader.exec_module(module)
    return module


def _construct(spec: str, factory: object) -> nn.Module:
    if isinstance(factory, nn.Module) or not callable(factory):
        raise ModelError(
            f"model {spec!r} is {type(factory).__name__} data, not a class or factory: "
            "name something that returns the network when called without arguments"
        )
    required = _required_arguments(factory)
    if required:
        raise ModelError(
            f"model {spec!r} needs arguments ({', '.join(required)}): "
            "give them defaults, or name a function that fills them in"
        )
    try:
        model = factory()
    except Exception as error:  # a user's constructor may raise anything
        raise ModelError(
            f"model {spec!r} cannot be built: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {spec!r} returns {type(model).__name__}, not a torch.nn.Module")
    return model


def _required_arguments(factory: Callable[..., object]) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # builtins without a signature: calling them tells
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]
