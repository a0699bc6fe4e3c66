"""One real run of a network, in which the field of every tensor is computed.

The network runs once, on its own weights and one image. PyTorch breaks what it calls down into ATen
operations, and each of them passes through `Run.__torch_dispatch__`.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import flop_registry

from cifar_cnn.analysis.calls import Call, Calls, map_leaves, place_at_work, tensors_in
from cifar_cnn.analysis.choice import SHAPE_ONLY, Operation, positional
from cifar_cnn.analysis.field import Field, hull, image_field, nothing
from cifar_cnn.analysis.memory import Memory
from cifar_cnn.analysis.rules import FUNCTIONS, anything, pointwise
from cifar_cnn.analysis.steps import Filter, Kind, Outcome, Rule, Step, UnsupportedError, Value
from cifar_cnn.analysis.windows import Shape
from cifar_cnn.errors import ModelError, one_line
from cifar_cnn.models.module import buffers_of, parameters_of

DECIDING = {"numpy", "tolist", "array"}
"""Functions that hand a tensor's numbers to the network's own code."""
SHOWING = {"repr", "format", "str"}
"""Functions that show a tensor, as a print in a network does."""
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}


class Run(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes the field of every tensor that depends on the image, as the network runs.

    Fields are intervals of the image's `dims`. Unless it is strict, the first unknown operation is
    noted in `unknown`, and its outputs see all that it reads.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler for this mode, which takes 0.9 s."""
        return False

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,
        assume_pointwise: Collection[str] = (),
        *,
        is_strict: bool = True,
        dims: tuple[int, int] = (2, 3),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = _FollowedCalls(model, self)
        self.steps: list[Step] = []
        self.values = Memory(self.steps, self.place)
        self.values[image] = Value(image_field(tuple(image.shape), dims), -1)
        self.image = image
        self.unknown = ""
        self.refused: ModelError | None = None  # TorchScript puts another error in its place
        self.unregistered: dict[Tensor, str] = {}
        self._assume_pointwise, self._is_strict = {*assume_pointwise}, is_strict
        self._is_in_function = False
        registered = [image, *parameters_of(model), *buffers_of(model)]
        self._registered = {id(tensor): tensor for tensor in registered}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation; note what its outputs see, and its mult-adds."""
        kwargs = kwargs or {}
        is_scripted = self.calls.current is None
        call = self.calls.current or self.calls.begin(func.overloadpacket.__name__)
        self.calls.current = call
        of = Operation(func, args, kwargs, call.function)
        tensors = tensors_in((args, kwargs))
        self._check_registered(tensors)
        has_image = any([self.values[tensor] is not None for tensor in tensors])  # noqa: C419
        try:
            result = self.execute(of.op, func, args, kwargs) if has_image else func(*args, **kwargs)
            if (formula := flop_registry.get(func.overloadpacket)) is not None:
                self.calls.count_mult_adds(formula(*args, **kwargs, out_val=result) // 2)
            if has_image and of.is_decision(self.values):
                self.refuse_decision()
            outputs = tensors_in(result) if has_image and of.op not in SHAPE_ONLY else []
            if outputs and not self._is_in_function:
                known = of.rule(self._assume_pointwise)
                kind, rule = known or (Kind.MIXING, partial(self._unknown, of))
                self.note(of.op, kind, rule, args, kwargs, outputs)
                if of.is_write and torch.Tag.inplace_view not in func.tags:
                    self.values.write(outputs[0])
                if is_scripted:
                    call.value = self.values[outputs[0]]
                    self.calls.add_row(call)
        finally:
            if is_scripted:
                self.calls.current = None
        return result

    def execute(self, op: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation that depends on the image."""
        return func(*args, **kwargs)

    def note(
        self, op: str, kind: Kind, rule: Rule, args: Any, kwargs: Any, outputs: Sequence[Tensor]
    ) -> None:
        """Apply a rule to an operation that has run, and note what its outputs see."""
        call = self.calls.current
        assert call is not None
        tensors = tensors_in((args, kwargs))
        inputs = tuple(value for tensor in tensors if (value := self.values[tensor]) is not None)
        outcome = self._apply(rule, args, kwargs, outputs)
        weight = None
        if op in {"convolution", "_convolution"}:
            is_learned = isinstance(args[1], nn.Parameter) or args[1].requires_grad
            weight = Filter(tuple(args[1].shape), args[8], args[6], is_learned)
        step = Step(op, kind, outcome, call, inputs, weight)
        call.steps.append(len(self.steps))
        self.steps.append(step)
        for output, field in zip(outputs, outcome.fields, strict=True):
            self.values[output] = Value(field, len(self.steps) - 1)
        self.look_at(step, tensors, outputs)

    def look_at(self, step: Step, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Inspect the inputs and outputs of a step."""

    def whole_function(self, name: str, func: Any, args: Any) -> Any:
        """Run a function that has a rule as a whole."""
        self._is_in_function = True
        try:
            result = func(*args)
        finally:
            self._is_in_function = False
        with _disable_current_modes():
            self.note(name, *FUNCTIONS[name], args, {}, [result])
        return result

    def place(self) -> str:
        """Return where the network is at work, as messages say it."""
        return f"in {self.calls.module_name() or 'the network'}{place_at_work()}"

    def refuse_decision(self) -> None:
        """Raise an error that says where the network branches on values from the image."""
        self.refused = ModelError(
            f"the network decides by the values in a tensor {self.place()}: "
            "what it computes differs from image to image"
        )
        raise self.refused

    @contextmanager
    def running(self) -> Iterator[None]:
        """Follow all that runs; for a gradient nothing is kept."""
        hooks: Any = torch.autograd.graph.saved_tensors_hooks
        nothing_saved = hooks(lambda _: None, lambda _: None)
        with self.calls.running(), torch.enable_grad(), nothing_saved, self:
            yield

    def _apply(self, rule: Rule, args: Any, kwargs: Any, outputs: Sequence[Tensor]) -> Outcome:
        """Return the outcome of a rule, with a field for each output."""
        shapes = [tuple(output.shape) for output in outputs]
        args, kwargs = map_leaves((args, kwargs), self._as_field)
        try:
            found = rule(shapes[0], *args, **kwargs) if outputs[0].numel() else nothing(())
        except (UnsupportedError, ValueError) as error:
            function = self.calls.current.function if self.calls.current else ""
            why = f"operation {function!r} {one_line(error)} is not supported"
            self._refuse(f"{why} {self.place()}", error)
            found = anything(shapes[0], *args, **kwargs)
        outcome = Outcome((found,)) if isinstance(found, Field) else found
        fields = outcome.fields * (len(shapes) if len(outcome.fields) == 1 else 1)
        pairs = zip(shapes, fields, strict=False)
        fitting = tuple(hull(shape, [field]) for shape, field in pairs)
        return Outcome(fitting, outcome.window, outcome.spans, outcome.covers)

    def _as_field(self, leaf: object) -> object:
        if isinstance(leaf, Tensor):
            value = self.values[leaf]
            return nothing(tuple(leaf.shape)) if value is None else value.field
        return leaf

    def _unknown(self, of: Operation, out: Shape, *args: Any, **kwargs: Any) -> Field:
        """Stop, or let every output see all that is read."""
        keeps_shape = any(tuple(tensor.shape) == out for tensor in tensors_in((of.args, of.kwargs)))
        advice = "it changes the shape, and what its outputs read is not known"
        if keeps_shape:
            how = "if each of its output positions reads only the same input position"
            advice = f"{how}, say --assume-pointwise {of.function}"
        self._refuse(f"unknown operation {of.function!r} ({of.func}) {self.place()}: {advice}")
        return (pointwise if keeps_shape else anything)(out, *args, **kwargs)

    def _refuse(self, refusal: str, cause: Exception | None = None) -> None:
        if self._is_strict:
            self.refused = ModelError(refusal)
            raise self.refused from cause
        self.unknown = self.unknown or refusal

    def _check_registered(self, tensors: Sequence[Tensor]) -> None:
        """Note learned tensors that are no parameter of the network."""
        for tensor in tensors:
            if tensor.requires_grad and tensor.is_leaf and id(tensor) not in self._registered:
                self._registered[id(tensor)] = tensor
                self.unregistered[tensor] = self.place()


class _FollowedCalls(Calls):
    """The calls of a run; some functions have a rule as a whole."""

    def __init__(self, model: nn.Module, run: Run) -> None:
        super().__init__(model)
        self._run = run

    def run(self, call: Call, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a function that the network calls."""
        name, values = call.function, self._run.values
        if name in DECIDING and any(values[tensor] for tensor in tensors_in((args, kwargs))):
            self._run.refuse_decision()
        if name in SHOWING:
            with _disable_current_modes():
                return func(*args, **kwargs)
        if name in RECURRENT:  # in one piece, its steps could not be counted
            with torch.backends.mkldnn.flags(enabled=False):
                return func(*args, **kwargs)
        if name in FUNCTIONS:
            bound = positional(name, func, args, kwargs)
            is_meant = (name != "pad" or "circular" in bound) and len(bound[0].shape) > 1
            if is_meant and any(values[tensor] for tensor in tensors_in(bound)):
                return self._run.whole_function(name, func, bound)
        return func(*args, **kwargs)

    def is_followed(self, result: Tensor, call: Call) -> bool:
        """Return whether the result of a call depends on the image, and is more than a name."""
        value = self._run.values[result]
        if value is None:
            return False
        call.value = value
        if not result.numel():
            raise ValueError(f"{call.function} leaves an empty map")
        return bool(call.steps) or "dropout" in call.function
