"""One real run of a network, in which the field of every tensor is computed.

The network runs once, on its own weights and one image. PyTorch breaks what it calls down into ATen
operations, and each of them passes through `Run.__torch_dispatch__`. Views tell by their strides
where their elements lie, what else only moves elements tells by a run on their numbers, and for
what remains there are tags and `rules`.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

from cifar_cnn.analysis.calls import Call, Calls, leaves, tensors_in
from cifar_cnn.analysis.field import Field, hull, image_field, nothing
from cifar_cnn.analysis.moves import DisjointError, numbered, reduce, reshape, strided, views
from cifar_cnn.analysis.rules import (
    FUNCTIONS,
    RULES,
    Kind,
    Outcome,
    Rule,
    Shapes,
    UnsupportedError,
    adaptive_window,
    pointwise,
    reduction,
)
from cifar_cnn.analysis.source import place_at_work
from cifar_cnn.errors import ModelError, one_line

SHAPE_ONLY = {
    *("new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros"),
    *("empty_like", "full_like", "ones_like", "zeros_like", "rand_like", "randn_like"),
}
"""Operations that take a tensor's shape and nothing of what is in it."""
NUMBERED = {
    *("index", "index_select", "index_put", "_unsafe_index", "gather", "scatter", "take"),
    *("flip", "roll", "rot90", "repeat", "tril", "triu", "diagonal"),
    *("channel_shuffle", "native_channel_shuffle"),
}
"""Operations that move elements as their arguments say: their numbers tell where to."""
CUTS = {"unsafe_split", "unsafe_split_with_sizes"}
"""Operations that are views, but that torch does not call so."""
DECIDING = {"numpy", "tolist", "array"}
"""Functions that hand a tensor's numbers to the network's own code."""
MASKS = (torch.bool, torch.uint8)
SHOWING = {"repr", "format", "str"}
"""Functions that show a tensor, as a print in a network does."""
MOVED = {"self", "values", "src", "input", "source"}
"""Names of the arguments whose elements an operation moves; others say where to."""
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}


@dataclass(frozen=True, eq=False)
class Value:
    """What a tensor sees, and the step that made it; -1 is the image."""

    field: Field
    made: int


@dataclass(frozen=True)
class Filter:
    """The weight of a convolution: its shape, its groups, and whether it is learned."""

    shape: tuple[int, ...]
    groups: int
    is_transposed: bool
    is_learned: bool


@dataclass(frozen=True, eq=False)
class Step:
    """An operation that the image has a part in.

    Args:
        op: its ATen name, without the underscore of one in place.
        kind: what it does to the elements.
        outcome: the fields of its outputs, and its window.
        call: what the network called.
        inputs: the tensors it reads that the image has a part in.
        filter: of a convolution.
    """

    op: str
    kind: Kind
    outcome: Outcome
    call: Call
    inputs: tuple[Value, ...]
    filter: Filter | None = None

    @property
    def field(self) -> Field:
        """What its first output sees."""
        return self.outcome.fields[0]


class Run(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes the field of every tensor that depends on the image, as the network runs.

    Args:
        model: the network.
        image: (N, 3, H, W), what it is run on.
        vouched: operations that are element-wise by the user's word.
        is_strict: whether an unknown operation ends the run; else the first one is in `unknown`,
            and its outputs see all that it reads.
        dims: the dimensions of the image that fields are intervals of.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler for this mode, which takes 0.9 s."""
        return False

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,
        vouched: Collection[str] = (),
        *,
        is_strict: bool = True,
        dims: tuple[int, int] = (2, 3),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = _FollowedCalls(model, self)
        self.steps: list[Step] = []
        self.image = image
        self.unknown = ""
        self.unregistered: dict[Tensor, str] = {}
        self._vouched, self._is_strict = vouched, is_strict
        self._in_whole_function = False
        self._values: MutableMapping[Tensor, Value] = WeakIdKeyDictionary()
        self._values[image] = Value(image_field(tuple(image.shape), dims), -1)
        self._writes: dict[int, list[tuple[Tensor, Value]]] = {}
        self._writes_seen: MutableMapping[Tensor, int] = WeakIdKeyDictionary()
        registered = [*nn.Module.parameters(model), *nn.Module.buffers(model)]
        self._registered = {id(tensor): tensor for tensor in registered}

    def value_of(self, tensor: Tensor) -> Value | None:
        """Return what is known of a tensor; None if the image has no part in it."""
        log = self._writes.get(tensor.untyped_storage()._cdata)  # noqa: SLF001
        if log and self._writes_seen.get(tensor, 0) < len(log):
            for view, written in log[self._writes_seen.get(tensor, 0) :]:
                self._follow_write(tensor, view, written)
            self._writes_seen[tensor] = len(log)
        return self._values.get(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation; note what its outputs see, and its mult-adds."""
        kwargs = kwargs or {}
        tensors = tensors_in((args, kwargs))
        self._check_registered(tensors)
        has_image = any([self.value_of(tensor) is not None for tensor in tensors])  # noqa: C419
        name = func.overloadpacket.__name__
        is_write = any(a.alias_info and a.alias_info.is_write for a in _schema(func).arguments)
        op = name.removesuffix("_") if is_write else name
        is_scripted = self.calls.current is None
        call = self.calls.current = self.calls.current or self.calls.begin(name)
        try:
            result = self.execute(op, func, args, kwargs) if has_image else func(*args, **kwargs)
            if (formula := flop_registry.get(func.overloadpacket)) is not None:
                self.calls.count_mult_adds(formula(*args, **kwargs, out_val=result) // 2)
            if has_image and op not in SHAPE_ONLY and not self._in_whole_function:
                self._refuse_decisions(func, op, args, kwargs)
                outputs = tensors_in(result)
                if not outputs:  # an assertion
                    return result
                self.note(op, *self._rule_of(op, func, args, kwargs), args, kwargs, outputs)
                if is_write and torch.Tag.inplace_view not in func.tags:
                    self._log_write(outputs[0])
        finally:
            if is_scripted:
                self.calls.current = None
        if is_scripted and has_image and call.steps:
            call.value = self._values[outputs[0]]
            self.calls.add_row(call)
        return result

    def execute(self, op: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation that the image has a part in."""
        return func(*args, **kwargs)

    def note(
        self, op: str, kind: Kind, rule: Rule, args: Any, kwargs: Any, outputs: Sequence[Tensor]
    ) -> Step:
        """Apply a rule to an operation that has run, and note what its outputs see."""
        call = self.calls.current
        assert call is not None
        shapes = [tuple(output.shape) for output in outputs]
        read = (self.value_of(tensor) for tensor in tensors_in((args, kwargs)))
        inputs = tuple(value for value in read if value is not None)
        given, named = changed((args, kwargs), self._field_of)
        if outputs[0].numel():
            try:
                outcome = rule(shapes, *given, **named)
            except (UnsupportedError, ValueError) as error:
                why = f"operation {call.function!r} {one_line(error)} is not supported"
                raise ModelError(f"{why} {self.place()}") from error
        else:
            outcome = Outcome(tuple(nothing(shape) for shape in shapes))
        weight = None
        if op == "convolution":
            is_learned = isinstance(args[1], nn.Parameter) or args[1].requires_grad
            weight = Filter(tuple(args[1].shape), args[8], args[6], is_learned)
        step = Step(op, kind, outcome, call, inputs, weight)
        self._keep(step, outputs)
        self.look_at(step, tensors_in((args, kwargs)), outputs)
        return step

    def look_at(self, step: Step, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """See what a step has read and put out."""

    def place(self) -> str:
        """Return where the network is at work, as messages say it."""
        return f"in {self.calls.module_name() or 'the network'}{place_at_work()}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Follow all that runs."""
        nothing_saved: Any = torch.autograd.graph.saved_tensors_hooks
        with (
            self.calls.running(),
            torch.enable_grad(),
            nothing_saved(lambda _: None, lambda _: None),
            self,
        ):
            yield

    def whole_function(self, name: str, func: Any, args: Any) -> Any:
        """Run a function that has a rule as a whole."""
        self._in_whole_function = True
        try:
            result = func(*args)
        finally:
            self._in_whole_function = False
        with _disable_current_modes():
            self.note(name, *FUNCTIONS[name], args, {}, [result])
        return result

    def _keep(self, step: Step, outputs: Sequence[Tensor]) -> None:
        step.call.steps.append(len(self.steps))
        self.steps.append(step)
        for output, field in zip(outputs, step.outcome.fields, strict=True):
            self._values[output] = Value(field, len(self.steps) - 1)
            log = self._writes.get(output.untyped_storage()._cdata)  # noqa: SLF001
            if log:
                self._writes_seen[output] = len(log)

    def _field_of(self, leaf: object) -> object:
        if not isinstance(leaf, Tensor):
            return leaf
        value = self._values.get(leaf)
        return nothing(tuple(leaf.shape)) if value is None else value.field

    def _rule_of(self, op: str, func: Any, args: Any, kwargs: Any) -> tuple[Kind, Rule]:
        """Return the rule of an operation, and what it does to the elements."""
        for kind, rules in RULES.items():
            if op in rules:
                return kind, rules[op]
        returns = _schema(func).returns
        is_view = any(r.alias_info and not r.alias_info.is_write for r in returns)
        if is_view or torch.Tag.inplace_view in func.tags or op in NUMBERED | CUTS:
            return Kind.MOVE, partial(self._moved, op, func, args, kwargs)
        call = self.calls.current
        assert call is not None
        names = {op, func.__name__, call.function}
        if torch.Tag.pointwise in func.tags or names & set(self._vouched):
            return Kind.POINTWISE, pointwise
        if torch.Tag.reduction in func.tags:
            return Kind.MIXING, partial(_reduced, func, args, kwargs, call.function)
        shapes = {tuple(tensor.shape) for tensor in tensors_in((args, kwargs))}
        refusal = f"unknown operation {call.function!r} ({func}) {self.place()}: "
        return Kind.MIXING, partial(self._unknown, refusal, shapes)

    def _unknown(
        self, refusal: str, read: set[tuple[int, ...]], out: Shapes, *args: Any, **kwargs: Any
    ) -> Outcome:
        """Stop, or let every output see all that is read."""
        if read.issuperset(out):
            function = self.calls.current.function if self.calls.current else ""
            how = "if each of its output positions reads only the same input position, "
            refusal += f"{how}say --assume-pointwise {function}"
        else:
            refusal += "it changes the shape, and what its outputs read is not known"
        if self._is_strict:
            raise ModelError(refusal)
        self.unknown = self.unknown or refusal
        if read.issuperset(out):
            return pointwise(out, *args, **kwargs)
        fields = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Field)]
        seen = [reduce(field, range(len(field.shape)), keep=False) for field in fields]
        return Outcome(tuple(hull(shape, seen) for shape in out))

    def _moved(
        self, op: str, func: Any, args: Any, kwargs: Any, out: Shapes, x: Field, *_: Any, **__: Any
    ) -> Outcome:
        """Follow elements by the strides of a view, or else by their numbers."""
        with _disable_current_modes():
            if op not in NUMBERED:
                places = views(lambda base: func(base, *args[1:], **kwargs), x.shape)
                return Outcome(tuple(place.of(x) for place in places))
            names = [argument.name for argument in _schema(func).arguments]
            data = [a for a, name in zip(args, names, strict=False) if name in MOVED]
            indices = tensors_in((args, kwargs))
            by_image = [t for t in indices if t in self._values and not any(t is d for d in data)]
            if by_image and op == "index_put" and by_image[0].shape == args[0].shape:
                return pointwise(out, *(self._field_of(t) for t in (*data, *by_image)))
            if by_image or (op == "index_put" and args[3:] == (True,)):
                raise UnsupportedError("with an index whose numbers come from the image")
            fields = [field for d in data if isinstance(field := self._field_of(d), Field)]

            def run(*numbers: Tensor) -> Any:
                left = iter(numbers)
                given = [
                    next(left) if isinstance(a, Tensor) and name in MOVED else a
                    for a, name in zip(args, names, strict=False)
                ]
                return func(*given, **kwargs)

            return Outcome(tuple(numbered(run, fields)))

    def _check_registered(self, tensors: Sequence[Tensor]) -> None:
        """Note learned tensors that are no parameter of the network."""
        for tensor in tensors:
            is_new = tensor.requires_grad and tensor.is_leaf and id(tensor) not in self._registered
            if is_new and tensor is not self.image:
                self._registered[id(tensor)] = tensor
                self.unregistered[tensor] = self.place()

    def _refuse_decisions(self, func: Any, op: str, args: Any, kwargs: Any) -> None:
        by_shape = torch.Tag.dynamic_output_shape in func.tags and not op.startswith("index")
        if by_shape or torch.Tag.data_dependent_output in func.tags:
            self.refuse_decision()
        masks = [t for t in tensors_in(args[1]) if t.dtype in MASKS] if op == "index" else []
        if any(mask in self._values for mask in masks):
            self.refuse_decision()

    def refuse_decision(self) -> None:
        """Stop where what the network does depends on the numbers in a tensor."""
        raise ModelError(
            f"the network decides by the values in a tensor {self.place()}: "
            "what it computes differs from image to image"
        )

    def _log_write(self, written: Tensor) -> None:
        """Note that an operation wrote into a tensor, for those that share its memory."""
        log = self._writes.setdefault(written.untyped_storage()._cdata, [])  # noqa: SLF001
        log.append((written.detach() if written.requires_grad else written, self._values[written]))
        self._writes_seen[written] = len(log)

    def _follow_write(self, tensor: Tensor, view: Tensor, written: Value) -> None:
        """Let a tensor see what was written into its memory through another one."""
        before = self._values.get(tensor)
        shape = tuple(tensor.shape)
        if tensor.is_contiguous() and view.is_contiguous() and tensor.numel() == view.numel():
            self._values[tensor] = Value(reshape(written.field, shape), written.made)
            return
        call = self.steps[written.made].call
        try:
            with suppress(ValueError):
                whole = strided(tensor, view.shape, _strides(view), int(view.storage_offset()))
                self._values[tensor] = Value(whole.of(written.field), written.made)
                return
            part = strided(view, shape, _strides(tensor), int(tensor.storage_offset()))
        except DisjointError:
            return
        except ValueError:
            raise ModelError(
                f"{call.function!r} {self.place()} writes into a part of a tensor in place: "
                "write it without the trailing underscore, on a new tensor"
            ) from None
        old = nothing(shape) if before is None else before.field
        field = part.written_into(old, written.field)
        inputs = (written,) if before is None else (before, written)
        step = Step("copy", Kind.MOVE, Outcome((field,)), call, inputs)
        self.steps.append(step)
        self._values[tensor] = Value(field, len(self.steps) - 1)


class _FollowedCalls(Calls):
    """The calls of a run; some functions have a rule as a whole."""

    def __init__(self, model: nn.Module, run: Run) -> None:
        super().__init__(model)
        self._run = run

    def run(self, call: Call, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a function that the network calls."""
        name = call.function
        if name in DECIDING and any(self._run.value_of(t) for t in tensors_in((args, kwargs))):
            self._run.refuse_decision()
        if name in SHOWING:
            with _disable_current_modes():
                return func(*args, **kwargs)
        if name in RECURRENT:  # in one piece, its steps could not be counted
            with torch.backends.mkldnn.flags(enabled=False):
                return func(*args, **kwargs)
        if name in FUNCTIONS:
            bound = _positional(name, func, args, kwargs)
            is_meant = (name != "pad" or "circular" in bound) and len(bound[0].shape) > 1
            if is_meant and any(self._run.value_of(tensor) for tensor in tensors_in(bound)):
                return self._run.whole_function(name, func, bound)
        return func(*args, **kwargs)

    def is_followed(self, result: Tensor, call: Call) -> bool:
        """Return whether the image has a part in the result of a call that is more than a name."""
        value = self._run.value_of(result)
        if value is None:
            return False
        call.value = value
        if not result.numel():
            raise ValueError(f"{call.function} leaves an empty map")
        return bool(call.steps) or "dropout" in call.function


def _schema(func: Any) -> Any:
    return func._schema  # noqa: SLF001


def _reduced(
    func: Any, args: Any, kwargs: Any, function: str, out: Shapes, x: Field, *_: Any, **__: Any
) -> Outcome:
    """Reduce over the operation's `dim`, or over everything."""
    names = [argument.name for argument in _schema(func).arguments]
    at = names.index("dim") if "dim" in names else len(args)
    outcome = reduction(out, x, args[at] if at < len(args) else kwargs.get("dim"))
    if function.startswith("adaptive_avg_pool") and len(x.shape) > 3:
        rank = int(function[-2])
        return replace(outcome, window=adaptive_window(x.shape[-rank:], out[0][-rank:]))
    return outcome


def changed(tree: Any, change: Callable[[object], object]) -> Any:
    """Return the tuples, lists and dicts of `tree` with everything else in them changed."""
    if isinstance(tree, tuple | list):
        return [changed(item, change) for item in tree]
    if isinstance(tree, dict):
        return {key: changed(item, change) for key, item in tree.items()}
    return change(tree)


def _positional(name: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return a function's arguments without their names."""
    if not kwargs:
        return args
    if name in {"linear", "matmul"}:  # of no Python signature
        return (*args, *kwargs.values())
    return inspect.signature(func).bind(*args, **kwargs).args


def _strides(tensor: Tensor) -> list[int]:
    """Return the strides of a tensor; 0 where they say nothing."""
    return [s if n > 1 else 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True)]
