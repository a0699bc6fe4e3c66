"""Writes down the operations of a network while it runs."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakIdKeyDictionary

from cifar_cnn.analysis.graph import Graph, Operation, Value, convert, leaves
from cifar_cnn.analysis.known_numbers import numbers_in, numbers_made, plain_index
from cifar_cnn.analysis.operations import operation_name
from cifar_cnn.analysis.shared_memory import SharedMemory, writes_in_place
from cifar_cnn.analysis.source import user_line
from cifar_cnn.errors import ModelError
from cifar_cnn.models.layers import type_name

SHAPE_ONLY = {
    *("new_empty", "new_full", "new_ones", "new_zeros", "new_tensor"),
    *("empty_like", "full_like", "ones_like", "zeros_like", "rand_like", "randn_like"),
}
"""Operations that take a tensor's shape and nothing of what is in it."""


class Recorder(TorchFunctionMode):
    """Writes down every operation that the image has a part in.

    An operation is `known` by its name; any other stops the run with a ModelError. Where None is
    given, all are. With `run_as`, that runs the operations that the image has a part in.
    """

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,
        known: Collection[str] | None,
        run_as: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        self.graph = Graph(Value(tuple(image.shape), depends=True))
        self._known = known
        self._run_as = run_as
        self._names = {id(module): name for name, module in model.named_modules()}
        self._stack: list[nn.Module] = []
        self._begun: list[int] = []
        self._calls = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._values: MutableMapping[Tensor, Value] = WeakIdKeyDictionary()
        self._values[image] = self.graph.image
        self._newest: MutableMapping[Tensor, Tensor] = WeakIdKeyDictionary()
        self._shared = SharedMemory(is_replaced=run_as is not None)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types_: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the function and record it, if the image has a part in it."""
        kwargs = dict(kwargs or {})
        if kwargs.get("out", args) is None:  # torch's own functions pass it on so
            del kwargs["out"]
        if not args and "input" in kwargs:  # rules take the tensor first, by whatever name
            args = (kwargs.pop("input"),)
        op = operation_name(func)
        if op in {"getitem", "setitem"}:
            args = (args[0], plain_index(args[1], args[0].shape, self._value_of), *args[2:])
        if op == "setitem":
            self._shared.assign(args[0], args[2])
        inputs = convert((args, kwargs), self._value_of)
        depends = any(isinstance(leaf, Value) and leaf.depends for leaf in leaves(inputs))
        depends = depends and op not in SHAPE_ONLY
        if depends and self._run_as is not None:
            newest_args, newest_kwargs = convert((args, kwargs), self._newest_of)
            result = self._run_as(op, func, newest_args, newest_kwargs, inputs)
        else:
            result = func(*args, **kwargs)
        made = args[0] if result is None and op == "setitem" else result
        tensors = [leaf for leaf in leaves(made) if isinstance(leaf, Tensor)]
        if depends and tensors:
            self._record(op, func, inputs, args, tensors)
        for tensor in tensors if not depends else ():
            learned = any(isinstance(leaf, Value) and leaf.learned for leaf in leaves(inputs))
            numbers = numbers_made(op, args, tensor)
            self._values[tensor] = Value(tuple(tensor.shape), False, learned, numbers)
        return result

    @contextmanager
    def running(self) -> Iterator[None]:
        """Follow which module is at work, and record what it does."""
        with (
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave),
            self,
        ):
            yield

    def module_name(self) -> str:
        """The innermost module at work, by its name in the network."""
        names = [self._names.get(id(module)) for module in reversed(self._stack)]
        return next((name for name in names if name is not None), "")

    def value_of_output(self, output: object) -> Value:
        """Return the network's output; raises ModelError where it is not one tensor."""
        if not isinstance(output, Tensor):
            raise ModelError(
                f"the network returns {_describe(output)}, not one tensor: wrap it in a module "
                "that returns the tensor to analyze"
            )
        value = self._value_of(output)
        assert isinstance(value, Value)
        if not value.depends:
            raise ModelError("the network's output does not depend on its input")
        return value

    def _enter(self, module: nn.Module, _: Any) -> None:
        self._stack.append(module)
        self._begun.append(len(self.graph.operations))
        self._calls += 1

    def _leave(self, module: nn.Module, _: Any, __: Any) -> None:
        self._stack.pop()
        operations = self.graph.operations
        is_leaf = id(module) in self._names and not any(module.children())
        if len(operations) == self._begun.pop() + 1 and is_leaf:  # a layer of the user's own
            name, kind = self._names[id(module)], type_name(module)
            operations[-1] = replace(operations[-1], name=name or kind, type=kind)

    def _value_of(self, leaf: object) -> object:
        if not isinstance(leaf, Tensor):
            return leaf
        if self._shared.is_stale(leaf):
            self._renew(leaf)
        value = self._values.get(leaf)
        if value is None and leaf.grad_fn is not None:
            raise ModelError(
                f"a tensor in {self.module_name() or 'the network'} ({user_line()}) comes from "
                "code that cannot be followed (TorchScript, or a library in another language)"
            )
        learned = isinstance(leaf, nn.Parameter)
        return value or Value(tuple(leaf.shape), False, learned, numbers_in(leaf))

    def _newest_of(self, leaf: object) -> object:
        """What a replaced in-place operation would have written into this tensor."""
        return self._newest.get(leaf, leaf) if isinstance(leaf, Tensor) else leaf

    def _record(
        self, op: str, func: Any, inputs: Any, args: tuple[Any, ...], tensors: list[Tensor]
    ) -> None:
        module = self.module_name()
        if self._known is not None and op not in self._known:
            shapes = [leaf.shape for leaf in leaves(inputs) if isinstance(leaf, Value)]
            may_be_pointwise = all(tuple(tensor.shape) in shapes for tensor in tensors)
            raise ModelError(
                f"unknown operation {op!r} ({resolve_name(func) or op}) in "
                f"{module or 'the network'} ({user_line()}): "
                + (
                    "if each of its output positions reads only the same input position, "
                    f"say --assume-pointwise {op}"
                    if may_be_pointwise
                    else "it changes the shape, and what its outputs read is not known"
                )
            )
        if any(tensor.numel() == 0 for tensor in tensors):
            raise ValueError(f"{op} leaves an empty map")
        outputs = tuple(Value(tuple(tensor.shape), depends=True) for tensor in tensors)
        name, kind = self._row_name(op)
        replaced, named = inputs
        new = Operation(name, kind, op, replaced, named, outputs, module, user_line(), self._calls)
        self.graph.operations.append(new)
        self.graph.tensors.extend(tensors[:1])
        self._shared.made(op, func, args, tensors)
        self._values.update(zip(tensors, outputs, strict=True))
        if writes_in_place(func):
            self._values[args[0]] = outputs[0]
            if self._run_as is not None:
                self._newest[args[0]] = tensors[0]
            if len(new.inputs) > 1 or op == "setitem":
                self._shared.wrote(args[0], new, self._values)

    def _row_name(self, op: str) -> tuple[str, str]:
        """A childless module of torch.nn is one layer; elsewhere each operation is one."""
        module = self._stack[-1] if self._stack else None
        name = self.module_name()
        if module is not None and _is_layer(module) and id(module) in self._names:
            return name or type_name(module), type_name(module)
        self._calls += 1
        self._counts[name, op] += 1
        nth = f"{op}_{self._counts[name, op] - 1}" if self._counts[name, op] > 1 else op
        return (f"{name}.{nth}" if name else nth), op

    def _renew(self, tensor: Tensor) -> None:
        """Follow what was written, through another tensor, into the memory of this one."""
        renewal = self._shared.renew(tensor)
        inputs = convert(renewal.args, self._value_of)
        if self._run_as is not None:
            newest = convert(renewal.args, self._newest_of)
            self._newest[tensor] = self._run_as(renewal.op, renewal.func, newest, {}, (inputs, {}))
        new = Value(tuple(tensor.shape), depends=True)
        name, kind = self._row_name(renewal.op)
        by, op = renewal.written_by, renewal.op
        made = Operation(name, kind, op, inputs, {}, (new,), by.module, by.source, self._calls)
        self.graph.operations.append(made)
        self.graph.tensors.append(self._newest.get(tensor, tensor))
        self._values[tensor] = new


def _is_layer(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.") and not any(module.children())


def _describe(output: object) -> str:
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    if isinstance(output, dict):
        return f"a dict of {', '.join(map(str, output))}"
    return f"a {type(output).__name__}"
