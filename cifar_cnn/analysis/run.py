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

from cifar_cnn.analysis.calls import Call, Calls, changed, tensors_in
from cifar_cnn.analysis.choice import SHAPE_ONLY, Operation, anything, positional
from cifar_cnn.analysis.field import Field, image_field, nothing
from cifar_cnn.analysis.memory import Memory
from cifar_cnn.analysis.outcome import Kind, Outcome, Rule, Shapes, UnsupportedError
from cifar_cnn.analysis.rules import FUNCTIONS, pointwise
from cifar_cnn.analysis.source import place_at_work
from cifar_cnn.analysis.steps import Filter, Step, Value
from cifar_cnn.errors import ModelError, one_line
from cifar_cnn.models.module import buffers_of, parameters_of

DECIDING = {"numpy", "tolist", "array"}
"""Functions that hand a tensor's numbers to the network's own code."""
SHOWING = {"repr", "format", "str"}
"""Functions that show a tensor, as a print in a network does."""
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}


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
        self.values = Memory(self.steps, self.place)
        self.values[image] = Value(image_field(tuple(image.shape), dims), -1)
        self.image = image
        self.unknown = ""
        self.refused: ModelError | None = None  # TorchScript puts another error in its place
        self.unregistered: dict[Tensor, str] = {}
        self._vouched, self._is_strict, self._in_whole_function = {*vouched}, is_strict, False
        registered = [image, *parameters_of(model), *buffers_of(model)]
        self._registered = {id(tensor): tensor for tensor in registered}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation; note what its outputs see, and its mult-adds."""
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        is_scripted = self.calls.current is None
        call = self.calls.current = self.calls.current or self.calls.begin(name)
        of = Operation(name, func, args, kwargs, call.function, self._field_of)
        tensors = tensors_in((args, kwargs))
        self._check_registered(tensors)
        has_image = any([self.values[tensor] is not None for tensor in tensors])  # noqa: C419
        try:
            result = self.execute(of.op, func, args, kwargs) if has_image else func(*args, **kwargs)
            if (formula := flop_registry.get(func.overloadpacket)) is not None:
                self.calls.count_mult_adds(formula(*args, **kwargs, out_val=result) // 2)
            outputs = tensors_in(result)
            if has_image:
                self._refuse_decisions(of)
            if has_image and outputs and of.op not in SHAPE_ONLY and not self._in_whole_function:
                kind, rule = of.rule(self._vouched) or (Kind.MIXING, partial(self._unknown, of))
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
        """Run an operation that the image has a part in."""
        return func(*args, **kwargs)

    def note(
        self, op: str, kind: Kind, rule: Rule, args: Any, kwargs: Any, outputs: Sequence[Tensor]
    ) -> None:
        """Apply a rule to an operation that has run, and note what its outputs see."""
        call = self.calls.current
        assert call is not None
        shapes = [tuple(output.shape) for output in outputs]
        tensors = tensors_in((args, kwargs))
        inputs = tuple(value for tensor in tensors if (value := self.values[tensor]) is not None)
        given, named = changed((args, kwargs), self._as_field)
        try:
            empty = Outcome(tuple(nothing(shape) for shape in shapes))
            outcome = rule(shapes, *given, **named) if outputs[0].numel() else empty
        except (UnsupportedError, ValueError) as error:
            why = f"operation {call.function!r} {one_line(error)} is not supported"
            self._refuse(f"{why} {self.place()}", error)
            outcome = anything(shapes, *given, **named)
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
        """See what a step has read and put out."""

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

    def place(self) -> str:
        """Return where the network is at work, as messages say it."""
        return f"in {self.calls.module_name() or 'the network'}{place_at_work()}"

    def refuse_decision(self) -> None:
        """Stop where what the network does depends on the numbers in a tensor."""
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

    def _field_of(self, tensor: Tensor) -> Field | None:
        value = self.values[tensor]
        return None if value is None else value.field

    def _as_field(self, leaf: object) -> object:
        if isinstance(leaf, Tensor):
            return self._field_of(leaf) or nothing(tuple(leaf.shape))
        return leaf

    def _unknown(self, of: Operation, out: Shapes, *args: Any, **kwargs: Any) -> Outcome:
        """Stop, or let every output see all that is read."""
        shapes = {tuple(tensor.shape) for tensor in tensors_in((of.args, of.kwargs))}
        keeps_shape = shapes.issuperset(out)
        advice = "it changes the shape, and what its outputs read is not known"
        if keeps_shape:
            how = "if each of its output positions reads only the same input position"
            advice = f"{how}, say --assume-pointwise {of.function}"
        refusal = f"unknown operation {of.function!r} ({of.func}) {self.place()}: {advice}"
        self._refuse(refusal)
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

    def _refuse_decisions(self, of: Operation) -> None:
        decides = torch.Tag.data_dependent_output in of.func.tags
        if of.op == "index":
            masks = [t for t in tensors_in(of.args[1]) if t.dtype in {torch.bool, torch.uint8}]
            decides = any(self.values[mask] for mask in masks)
        elif not of.op.startswith("index"):
            decides = decides or torch.Tag.dynamic_output_shape in of.func.tags
        if decides:
            self.refuse_decision()


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
        """Return whether the image has a part in the result of a call that is more than a name."""
        value = self._run.values[result]
        if value is None:
            return False
        call.value = value
        if not result.numel():
            raise ValueError(f"{call.function} leaves an empty map")
        return bool(call.steps) or "dropout" in call.function
