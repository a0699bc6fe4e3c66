"""Follow a network at the level at which its author wrote it: modules, and the functions called."""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cifar_cnn.models.layers import type_name

_ARITHMETIC = ("add", "sub", "mul", "div", "truediv", "floordiv", "pow", "mod", "matmul")
SYNONYMS = {
    **{f"{form}{op}": op for form in "ri" for op in _ARITHMETIC},
    "concat": "cat",
    "concatenate": "cat",
    "T": "t",
    "mT": "adjoint",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "moveaxis": "movedim",
    "clip": "clamp",
}


def leaves(tree: object) -> Iterator[object]:
    """Yield all that is in the tuples, lists and dicts of `tree`."""
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from leaves(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from leaves(item)
    else:
        yield tree


def tensors_in(tree: object) -> list[Tensor]:
    """Return the tensors in the tuples, lists and dicts of `tree`."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def changed(tree: Any, change: Callable[[object], object]) -> Any:
    """Return the tuples, lists and dicts of `tree` with everything else in them changed."""
    if isinstance(tree, tuple | list):
        return [changed(item, change) for item in tree]
    if isinstance(tree, dict):
        return {key: changed(item, change) for key, item in tree.items()}
    return change(tree)


TORCHS_OWN = ("train", "eval", "to", "parameters", "named_parameters")
"""Methods that this tool and torchinfo call, and mean those of torch by."""


def function_name(func: Callable[..., Any]) -> str:
    """Return the name of a function; in-place, operator and attribute forms have the same."""
    name = func.__name__
    if name == "__get__":
        name = func.__self__.__name__  # type: ignore[attr-defined]
    name = name.strip("_") or name
    return SYNONYMS.get(name, name)


@dataclass(eq=False)
class Call:
    """A layer of torch.nn at work, or a function that the network calls elsewhere.

    Args:
        function: the function called; in a layer the last one.
        module: the module at work, by its name in the network.
        layer: the module, if it is a layer of torch.nn.
        name: its row's name in the table, and `type` the row's type, once it is a row.
        steps: the operations that it came down to, by their index in the run.
        number: of the function call that gave its result, among the network's own.
        value: the fields of that result, once the run has computed them.
    """

    function: str
    module: str
    layer: nn.Module | None = None
    name: str = ""
    type: str = ""
    steps: list[int] = field(default_factory=list)
    number: int = -1
    value: Any = None


class Calls(TorchFunctionMode):
    """Follows which module is at work, and which function it calls.

    Args:
        model: the network.
        keep: numbers of the function calls whose results stay in `kept`.
    """

    def __init__(self, model: nn.Module, keep: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.rows: list[Call] = []
        self.kept: dict[int, Tensor] = {}
        self.current: Call | None = None
        self.mult_adds: dict[nn.Module, list[int]] = {}
        self._model, self._keep, self._number = model, keep, -1
        self._names = {id(module): name for name, module in nn.Module.named_modules(model)}
        self._stack: list[_AtWork] = [_AtWork(None)]
        self._counts: Counter[tuple[str, str]] = Counter()
        self._begun: set[nn.Module] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function, and note which call the operations in it belong to."""
        caller = sys._getframe(1).f_globals.get("__name__", "")  # noqa: SLF001
        if self.current is not None or caller.startswith("torchinfo"):
            return func(*args, **(kwargs or {}))  # in a call, or none of the network's
        self.current = call = self.begin(function_name(func))
        try:
            result = self.run(call, func, args, kwargs or {})
        finally:
            self.current = None
        made = args[0] if result is None and args else result
        tensors = tensors_in(made)
        if tensors and len(self._stack) > 1:
            self._number += 1
            if self.is_followed(tensors[0], call):
                call.number = self._number
                self.add_row(call)
            if self._number in self._keep:
                self.kept[self._number] = tensors[0]
        return result

    def run(self, call: Call, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a function that the network calls."""
        return func(*args, **kwargs)

    def is_followed(self, result: Tensor, call: Call) -> bool:
        """Return whether the call becomes a row of the table."""
        return False

    def begin(self, function: str) -> Call:
        """Return the call of a layer at work, or a new one."""
        at_work = self._stack[-1]
        if at_work.layer_call is None:
            return Call(function, self.module_name())
        at_work.layer_call.function = function
        return at_work.layer_call

    def add_row(self, call: Call) -> None:
        """Name the call, and add it to the rows, if it is none yet."""
        if call.name:
            return
        if call.layer is not None:
            call.name, call.type = call.module or type_name(call.layer), type_name(call.layer)
        else:
            self._counts[call.module, call.function] += 1
            times = self._counts[call.module, call.function]
            nth = f"{call.function}_{times - 1}" if times > 1 else call.function
            call.name = f"{call.module}.{nth}" if call.module else nth
            call.type = call.function
        self.rows.append(call)

    def count_mult_adds(self, number: int) -> None:
        """Add mult-adds to those of the module at work."""
        self._stack[-1].mult_adds += number

    def module_name(self) -> str:
        """Return the innermost module at work that has a name in the network."""
        names = (self._names.get(id(at_work.module)) for at_work in reversed(self._stack))
        return next((name for name in names if name is not None), "")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Follow the modules and functions that run."""
        with ExitStack() as undo, self:
            for module in nn.Module.modules(self._model):
                undo.enter_context(nn.Module.register_forward_pre_hook(module, self._enter))
                undo.enter_context(nn.Module.register_forward_hook(module, self._leave))
                if not isinstance(module, torch.jit.ScriptModule):
                    undo.enter_context(self._changed(module))
            yield

    def _enter(self, module: nn.Module, _: Any) -> None:
        torch.set_grad_enabled(len(self._stack) == 1 or torch.is_grad_enabled())
        self._begun.add(module)
        self._stack.append(_AtWork(module, len(self.rows)))
        if _is_layer(module):
            self._stack[-1].layer_call = Call("", self.module_name(), module)

    def _leave(self, module: nn.Module, _: Any, __: Any) -> None:
        at_work = self._stack.pop()
        self.mult_adds.setdefault(module, []).append(at_work.mult_adds)
        new = self.rows[at_work.rows :]
        if len(new) == 1 and not any(nn.Module.children(module)):  # a layer of the user's own
            new[0].type = type_name(module)
            new[0].name = self._names[id(module)] or new[0].type

    @contextmanager
    def _changed(self, module: nn.Module) -> Iterator[None]:
        """Let `module.forward(x)` call the module, so that its hooks run.

        Methods of the author's own that have the name of one of torch's give way to torch's.
        """
        forward, own = module.forward, vars(module)
        before = {name: own[name] for name in ("forward", *TORCHS_OWN) if name in own}

        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            if module not in self._begun:
                return module(*args, **kwargs)
            self._begun.remove(module)
            return forward(*args, **kwargs)

        own["forward"] = run
        for name in TORCHS_OWN:
            if getattr(type(module), name) is not getattr(nn.Module, name):
                own[name] = getattr(nn.Module, name).__get__(module)
        try:
            yield
        finally:
            for name in ("forward", *TORCHS_OWN):
                own.pop(name, None)
            own.update(before)


@dataclass
class _AtWork:
    """A module whose forward runs, how many rows there were before, and its own mult-adds."""

    module: nn.Module | None
    rows: int = 0
    mult_adds: int = 0
    layer_call: Call | None = None


def _is_layer(module: nn.Module) -> bool:
    is_torchs = type(module).__module__.startswith("torch.nn.")
    return is_torchs and not any(nn.Module.children(module))
