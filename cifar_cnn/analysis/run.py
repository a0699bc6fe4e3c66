"""One real run of a network, in which the field of every tensor is computed.

The network runs once, on its own weights and one image. PyTorch breaks what it calls down into ATen
operations, and each of them passes through `Run.__torch_dispatch__`.
"""

import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import flop_registry

from cifar_cnn.analysis.calls import Calls, map_leaves, tensors_in
from cifar_cnn.analysis.choice import SHAPE_ONLY, Operation, positional
from cifar_cnn.analysis.field import Field, hull, image_field
from cifar_cnn.analysis.memory import Memory
from cifar_cnn.analysis.rules import anything, pointwise
from cifar_cnn.analysis.steps import (
    FUNCTIONS,
    Filter,
    Kind,
    Outcome,
    Rule,
    Step,
    UnsupportedError,
    Value,
)
from cifar_cnn.analysis.windows import Shape
from cifar_cnn.errors import ModelError, UserError, one_line
from cifar_cnn.models.guard import place_of
from cifar_cnn.models.module import buffers_of, parameters_of

STARTS = {"run_network", "prove"}
"""Functions that run a network: the frames above them are the caller's code."""
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
        self.steps: list[Step] = []
        self.values = Memory(self.steps)
        self.values[image] = Value(image_field(tuple(image.shape), dims), -1)
        self.calls = Calls(model, self.values.__getitem__, self.run_function)
        self.image = image
        self.unknown = ""
        self.unregistered: dict[Tensor, str] = {}
        self._refused: ModelError | None = None  # TorchScript puts another error in its place
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
        has_image = self.values.see_image(tensors)
        try:
            result = self.execute(of.op, func, args, kwargs) if has_image else func(*args, **kwargs)
            if (formula := flop_registry.get(func.overloadpacket)) is not None:
                self.calls.count_mult_adds(formula(*args, **kwargs, out_val=result) // 2)
            if has_image and of.is_decision(self.values):
                self._refuse_decision()
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

    def run_function(self, name: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a function that the network calls; some have a rule as a whole."""
        if name in DECIDING and self.values.see_image((args, kwargs)):
            self._refuse_decision()
        if name in SHOWING:
            with _disable_current_modes():
                return func(*args, **kwargs)
        if name in RECURRENT:  # in one piece, its steps could not be counted
            with torch.backends.mkldnn.flags(enabled=False):
                return func(*args, **kwargs)
        if name in FUNCTIONS:
            bound = positional(name, func, args, kwargs)
            has_rule = (name != "pad" or "circular" in bound) and len(bound[0].shape) > 1
            if has_rule and self.values.see_image(bound):
                return self._run_whole(name, func, bound)
        return func(*args, **kwargs)

    def execute(self, op: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation, or a whole function, that depends on the image."""
        return func(*args, **kwargs)

    def look_at(self, step: Step, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Inspect the inputs and outputs of a step."""

    def note(
        self, op: str, kind: Kind, rule: Rule, args: Any, kwargs: Any, outputs: Sequence[Tensor]
    ) -> None:
        """Apply a rule to an operation that has run, and note what its outputs see."""
        call = self.calls.current
        assert call is not None
        tensors = tensors_in((args, kwargs))
        inputs = tuple(value for tensor in tensors if (value := self.values[tensor]) is not None)
        outcome = self._apply(rule, args, kwargs, outputs)
        weight = Filter.of(args) if op in {"convolution", "_convolution"} else None
        access = self.values.access(tensors, outputs)
        step = Step(op, kind, outcome, call, inputs, weight, *access)
        call.steps.append(len(self.steps))
        self.steps.append(step)
        for output, field in zip(outputs, outcome.fields, strict=True):
            self.values[output] = Value(field, len(self.steps) - 1)
        self.look_at(step, tensors, outputs)

    def place(self) -> str:
        """Return where the network is at work, as messages say it."""
        frames = traceback.extract_stack()
        first = max(index for index, frame in enumerate(frames) if frame.name in STARTS)
        name = self.calls.module_name() or "the network"
        return f"in {name}{place_of(frames[first + 1 :])}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Follow all that runs; for a gradient nothing is kept."""
        hooks: Any = torch.autograd.graph.saved_tensors_hooks
        nothing_saved = hooks(lambda _: None, lambda _: None)
        with self.calls.running(), torch.enable_grad(), nothing_saved, self:
            yield

    @contextmanager
    def guarded(self, failure: str, kind: type[UserError] = ModelError) -> Iterator[None]:
        """Turn what the network raises into one line: the failure, the place and the reason."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if self._refused is not None:
                raise self._refused from error
            frames = traceback.extract_tb(error.__traceback__)
            if any(frame.name == "note" for frame in frames):  # the error is the analysis's own
                raise
            where = f"{self.calls.module_name() or 'its forward'}{place_of(frames)}"
            line = f"{failure}: {type(error).__name__} in {where}: {one_line(error)}"
            if isinstance(error, TypeError) and where == "its forward":  # the call itself fails
                line += "; only networks of one image tensor can be analyzed"
            raise kind(line) from (error.__cause__ or error)

    def _run_whole(self, name: str, func: Any, args: Any) -> Any:
        """Run a function that has a rule as a whole."""
        self._is_in_function = True
        try:
            result = self.execute(name, func, args, {})
        finally:
            self._is_in_function = False
        with _disable_current_modes():
            self.note(name, *FUNCTIONS[name], args, {}, [result])
        return result

    def _apply(self, rule: Rule, args: Any, kwargs: Any, outputs: Sequence[Tensor]) -> Outcome:
        """Return the outcome of a rule, with a field for each output."""
        shapes = [tuple(output.shape) for output in outputs]
        args, kwargs = map_leaves((args, kwargs), self.values.field_of)
        try:
            answer = rule(shapes[0], *args, **kwargs) if outputs[0].numel() else Field(())
        except (UnsupportedError, ValueError) as error:
            function = self.calls.current.function if self.calls.current else ""
            why = f"operation {function!r} {one_line(error)} is not supported"
            self._refuse(f"{why} {self.place()}", error)
            answer = anything(shapes[0], *args, **kwargs)
        outcome = answer if isinstance(answer, Outcome) else Outcome((answer,))
        fields = outcome.fields * (len(shapes) if len(outcome.fields) == 1 else 1)
        fitting = (hull(shape, [field]) for shape, field in zip(shapes, fields, strict=False))
        return replace(outcome, fields=tuple(fitting))

    def _unknown(self, of: Operation, out: Shape, *args: Any, **kwargs: Any) -> Field:
        """Stop, or let every output see all that is read."""
        keeps_shape = any(tuple(tensor.shape) == out for tensor in tensors_in((of.args, of.kwargs)))
        advice = "it changes the shape, and what its outputs read is not known"
        if keeps_shape:
            how = "if each of its output positions reads only the same input position"
            advice = f"{how}, say --assume-pointwise {of.function}"
        self._refuse(f"unknown operation {of.function!r} ({of.func}) {self.place()}: {advice}")
        return (pointwise if keeps_shape else anything)(out, *args, **kwargs)

    def _refuse_decision(self) -> None:
        self._refused = ModelError(
            f"the network decides by the values in a tensor {self.place()}: "
            "its operations depend on the image"
        )
        raise self._refused

    def _refuse(self, refusal: str, cause: Exception | None = None) -> None:
        if self._is_strict:
            self._refused = ModelError(refusal)
            raise self._refused from cause
        self.unknown = self.unknown or refusal

    def _check_registered(self, tensors: Sequence[Tensor]) -> None:
        """Note learned tensors that are no parameter of the network."""
        for tensor in tensors:
            if tensor.requires_grad and tensor.is_leaf and id(tensor) not in self._registered:
                self._registered[id(tensor)] = tensor
                self.unregistered[tensor] = self.place()
