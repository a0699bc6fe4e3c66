"""Modules that run without being called."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def forwards_as_calls(model: nn.Module) -> Iterator[None]:
    """Make `module.forward(x)` the same as `module(x)`."""
    begun: set[nn.Module] = set()

    def instead_of(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            if module not in begun:
                return module(*args, **kwargs)
            begun.remove(module)
            return forward(*args, **kwargs)

        return run

    modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    before = [vars(module).get("forward") for module in modules]
    hook = register_module_forward_pre_hook(lambda module, _: begun.add(module))
    try:
        for module in modules:
            vars(module)["forward"] = instead_of(module, module.forward)
        yield
    finally:
        hook.remove()
        for module, own in zip(modules, before, strict=True):
            vars(module).pop("forward", None)
            if own is not None:
                vars(module)["forward"] = own
