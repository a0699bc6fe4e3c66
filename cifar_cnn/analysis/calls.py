"""Follow a network at the level at which its author wrote it: modules, and the functions called."""

import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterator
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
    **dict.fromkeys(("concat", "concatenate"), "cat"),
    **dict.fromkeys(("swapaxes", "swapdims"), "transpose"),
    "T": "t",
    "mT": "adjoint",
    "moveaxis": "movedim",
    "clip": "clamp",
}


@dataclass(eq=False)
class Call:
    """A running torch.nn layer, or a function that the network calls outside of one.

    `function` is the function called, in a layer the last one, and `number` counts the functions
    that the network calls. `name` and `type` are those of its row in the table, once it has one.
    `steps` are its operations, by their index in the run, and `value` is what its result sees.
    """

    function: str
    module: str
    layer: nn.Module | None = None
    name: str = ""
    type: str = ""
    steps: list[int] = field(default_factory=list)
    number: int = -1
    value: Any = None


@dataclass
class ModuleRun:
    """A forward of a module: output shape without the batch, mult-adds without its children's.

    `first_row` is the number of rows when it begins, `layer_call` the call of a torch.nn layer.
    """

    module: nn.Module
    first_row: int = 0
    layer_call: Call | None = None
    output_size: tuple[int, ...] = ()
    mult_adds: int = 0


class Calls(TorchFunctionMode):
    """Follows which module is at work, and which function it calls.

    `values` tells what a tensor sees: the calls whose results depend on the image become `rows`.
    `run_function` runs the functions that the network calls. `kept` has the results of those whose
    numbers are in `keep`, `ended` the modules in the order in which their forwards end.
    """

    def __init__(
        self,
        model: nn.Module,
        values: Callable[[Tensor], Any] = lambda _: None,
        run_function: Callable[..., Any] = lambda _, func, args, kwargs: func(*args, **kwargs),
        keep: Collection[int] = (),
    ) -> None:
        super().__init__()
        self.rows: list[Call] = []
        self.kept: dict[int, Tensor] = {}
        self.current: Call | None = None
        self.ended: list[ModuleRun] = []
        self._model, self._values, self._run_function = model, values, run_function
        self._keep, self._number = keep, -1
        self._names = {id(module): name for name, module in nn.Module.named_modules(model)}
        self._stack = [ModuleRun(model)]
        self._counts: Counter[tuple[str, str]] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function, and note which call the operations in it belong to."""
        if self.current is not None:
            return func(*args, **(kwargs or {}))
        self.current = call = self.begin(function_name(func))
        try:
            result = self._run_function(call.function, func, args, kwargs or {})
        finally:
            self.current = None
        tensors = tensors_in(args[0] if result is None and args else result)
        if tensors and len(self._stack) > 1:
            self._number += 1
            if (value := self._values(tensors[0])) is not None:
                if not tensors[0].numel():
                    raise ValueError(f"{call.function} leaves an empty map")
                call.value = value
                if call.steps or "dropout" in call.function:  # more than another name
                    call.number = self._number
                    self.add_row(call)
            if self._number in self._keep:
                self.kept[self._number] = tensors[0]
        return result

    def begin(self, function: str) -> Call:
        """Return the call of a layer at work, or a new one."""
        call = self._stack[-1].layer_call or Call(function, self.module_name())
        call.function = function
        return call

    def add_row(self, call: Call) -> None:
        """Name the call and add it to the rows, unless it is one already."""
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
        names = (self._names.get(id(running.module)) for running in reversed(self._stack))
        return next((name for name in names if name is not None), "")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Follow the modules and functions that run."""
        with ExitStack() as undo, self:
            for module in nn.Module.modules(self._model):
                if isinstance(module, torch.jit.ScriptModule):  # its forward cannot be replaced
                    before = nn.Module.register_forward_pre_hook(module, self._enter)
                    undo.enter_context(before)
                    undo.enter_context(nn.Module.register_forward_hook(module, self._leave))
                else:
                    undo.enter_context(self._followed_forward(module))
            yield

    @contextmanager
    def _followed_forward(self, module: nn.Module) -> Iterator[None]:
        """Follow the module whenever its forward runs, also where it is called by that name."""
        forward, own = module.forward, vars(module)
        before = {"forward": forward} if "forward" in own else {}

        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            self._enter(module, args)
            output = forward(*args, **kwargs)
            self._leave(module, args, output)
            return output

        own["forward"] = run
        try:
            yield
        finally:
            own.pop("forward", None)
            own.update(before)

    def _enter(self, module: nn.Module, _: Any) -> None:
        self._stack.append(ModuleRun(module, len(self.rows)))
        is_torchs = type(module).__module__.startswith("torch.nn.")
        if is_torchs and not any(nn.Module.children(module)):
            self._stack[-1].layer_call = Call("", self.module_name(), module)

    def _leave(self, module: nn.Module, _: Any, output: Any) -> None:
        ended = self._stack.pop()
        self.ended.append(ended)
        tensors = tensors_in([*output.values()][-1:] if isinstance(output, dict) else output)
        ended.output_size = tuple(tensors[0].shape[1:]) if tensors else ()
        new = self.rows[ended.first_row :]
        if len(new) == 1 and not any(nn.Module.children(module)):  # a layer of the user's own
            new[0].type = type_name(module)
            new[0].name = self._names[id(module)] or new[0].type


def leaves(tree: object) -> Iterator[object]:
    """Yield all that is in the tuples, lists and dicts of `tree`; torch's takes twice the time."""
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from leaves(item)
    elif isinstance(tree, dict):
        yield from leaves([*tree.values()])
    else:
        yield tree


def tensors_in(tree: object) -> list[Tensor]:
    """Return the tensors in the tuples, lists and dicts of `tree`."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def map_leaves(tree: Any, change: Callable[[Any], object]) -> Any:
    """Return the tuples, lists and dicts of `tree` with all else in them changed."""
    if isinstance(tree, tuple | list):
        return [map_leaves(item, change) for item in tree]
    if isinstance(tree, dict):
        return {key: map_leaves(item, change) for key, item in tree.items()}
    return change(tree)


def function_name(func: Callable[..., Any]) -> str:
    """Return the name of a function; in-place, operator and attribute forms have the same."""
    name = func.__name__
    if name == "__get__":
        name = func.__self__.__name__  # type: ignore[attr-defined]
    name = name.strip("_") or name
    return SYNONYMS.get(name, name)
