"""The receptive field of a network: what each layer's units can see of the image.

The convention is that of A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of Convolutional
Neural Networks", Distill (2019): each layer has, along each axis, a size r, a jump j (effective
stride), a start (center of the first unit's field, the top-left pixel's center being 0) and an
effective padding P (how far the first unit's field reaches beyond the left or top edge), so that
unit i sees the pixels from start + i·j - (r - 1) / 2 to start + i·j + (r - 1) / 2. Several paths
give the hull of their fields, and are aligned if they agree on jump and center. Fields are not
clipped to the image.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.layers import Layer, Walk, external_inputs, last_row, layers_of, local_walks
from cifar_cnn.analysis.misalignment import is_gate, misalignments
from cifar_cnn.analysis.network import Model, open_model, run_network
from cifar_cnn.analysis.run import Run
from cifar_cnn.analysis.steps import Value, used_steps
from cifar_cnn.documents import analysis as documents
from cifar_cnn.errors import ModelError

Size = tuple[int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """The answer for a whole network.

    `layers` has a row for each layer. `features` is the last row with a map before global pooling
    or flattening; None if there is no such row. Where global gates let its units see the whole
    image, `without_gates` is its field without them. `final` is the largest field at the output,
    not clipped to the image.
    """

    model: str
    input_size: Size
    layers: tuple[Layer, ...]
    features: Layer | None
    without_gates: Size | None
    final: Size
    covers_input: bool
    aligned: bool
    warnings: tuple[str, ...]
    minimum: int

    @property
    def passed(self) -> bool:
        """Whether the smaller side of the final field is above the minimum."""
        return min(self.final) > self.minimum

    @property
    def units(self) -> documents.Units | None:
        """First, middle and last unit of the features, where one row does not hold for all."""
        if self.features is None:
            return None
        if self.aligned and all(walk.is_uniform for walk in self.features.walks):
            return None
        return {
            "first": _unit(self.features.walks, Fraction(0)),
            "middle": _unit(self.features.walks, Fraction(1, 2)),
            "last": _unit(self.features.walks, Fraction(1)),
        }

    def as_dict(self) -> documents.ReceptiveField:
        """Return the document that `receptive-field --json` prints."""
        return {
            "model": self.model,
            "input_size": [3, *self.input_size],
            "layers": [_as_dict(layer) for layer in self.layers],
            "features": self.features_as_dict(),
            "final": self.final_as_dict(),
            "aligned": self.aligned,
            "units": self.units,
            "warnings": list(self.warnings),
            "minimum": self.minimum,
            "passed": self.passed,
        }

    def features_as_dict(self) -> documents.Features:
        """Return `features` as in the documents."""
        if self.features is None:  # the network flattens the image itself
            return {"receptive_field": [1, 1], "jump": [1, 1], "padding": [0, 0], "layer": "input"}
        features: documents.Features = {
            "receptive_field": [walk.size for walk in self.features.walks],
            "jump": [number(walk.jump) for walk in self.features.walks],
            "padding": [walk.padding for walk in self.features.walks],
            "layer": self.features.name,
        }
        if self.without_gates:
            features["without_gates"] = list(self.without_gates)
        return features

    def final_as_dict(self) -> documents.Final:
        """Return `final` as in the documents."""
        return {"receptive_field": list(self.final), "covers_input": self.covers_input}


def receptive_field(
    model: Model,
    input_size: Size = (32, 32),
    *,
    model_arg: Sequence[str] = (),
    minimum: int = Budget().min_rf,
    assume_pointwise: Collection[str] = (),
) -> ReceptiveField:
    """Compute the receptive field of every layer of a network, in evaluation mode.

    Args:
        model: a built-in name, `module:attr`, `path.py:attr`, or a module that takes (N, 3, H, W)
            float images and returns one tensor.
        input_size: (H, W) of the image in pixels.
        model_arg: arguments of the user's class or factory, each `NAME=VALUE`.
        minimum: the final field has to be above this, in pixels.
        assume_pointwise: operations unknown to the tool whose output positions each read only the
            same input position.

    Raises:
        ModelError: the network cannot be built, run or followed; the line says what and where.
    """
    name, module = open_model(model, model_arg)
    run, output = run_network(module, input_size, assume_pointwise)
    return analyze(name, run, output, minimum)


def analyze(name: str, run: Run, output: Value, minimum: int) -> ReceptiveField:
    """Return the answer for a run of a network.

    Raises:
        ModelError: there is nothing to analyze.
    """
    if output.made < 0:
        raise ModelError("the network returns its input as it is: there is no layer to analyze")
    size = run.image.shape[2], run.image.shape[3]
    layers = layers_of(run)
    used = used_steps(run.steps, output)
    maps = [row for row in layers if row.is_map and row.made in used]
    features = maps[-1] if maps else None
    calls = [(call, [v.field for v in external_inputs(run, call)]) for call in run.calls.rows]
    gates = [call.name for call, read in calls if is_gate(read)]
    misaligned = [line for call, read in calls for line in misalignments(call.name, read)]
    spanning = [step.call.name for step in run.steps if step.outcome.spans]
    walks = last_row(run, output).walks
    without_gates = None
    if features is not None and gates:
        vertical, horizontal = local_walks(features)
        without_gates = vertical.size, horizontal.size
    covers = all(
        (walk.low <= 0).all() and (walk.high >= side - 1).all()
        for walk, side in zip(walks, size, strict=True)
    )
    warnings = [*misaligned, *_warnings(features, without_gates, gates, spanning)]
    uneven = features is not None and not all(walk.is_uniform for walk in features.walks)
    if features is not None and uneven and not misaligned and not gates:
        warnings.append(
            f"the field at {features.name} differs from unit to unit: the size is the largest"
        )
    return ReceptiveField(
        model=name,
        input_size=size,
        layers=tuple(layers),
        features=features,
        without_gates=without_gates,
        final=(walks[0].size, walks[1].size),
        covers_input=covers,
        aligned=not misaligned,
        warnings=tuple(warnings),
        minimum=minimum,
    )


def _warnings(
    features: Layer | None, without_gates: Size | None, gates: list[str], spanning: list[str]
) -> list[str]:
    lines = []
    if features is not None and without_gates is not None:
        height, width = without_gates
        lines.append(
            f"global gate at {', '.join(gates)}: each unit behind it sees the whole "
            f"image; without such gates the field at {features.name} is {height}×{width}"
        )
    if spanning:
        lines.append(
            f"{', '.join(spanning)} normalizes by statistics over the whole map; "
            "as is usual, that does not count"
        )
    return lines


def _unit(walks: tuple[Walk, Walk], where: Fraction) -> documents.Unit:
    places = [int((len(walk.low) - 1) * where) for walk in walks]
    at = list(zip(walks, places, strict=True))
    return {
        "receptive_field": [walk.size_of(unit) for walk, unit in at],
        "start": [number(walk.center(unit)) for walk, unit in at],
    }


def _as_dict(layer: Layer) -> documents.FieldLayer:
    window = layer.window
    jumps = [number(walk.jump) for walk in layer.walks]
    return {
        "name": layer.name,
        "type": layer.type,
        "output_size": list(layer.output_size),
        "kernel": list(window.kernel),
        "stride": list(window.stride),
        "padding": [list(side) for side in window.padding],
        "dilation": list(window.dilation),
        "receptive_field": [walk.size for walk in layer.walks],
        "jump": jumps if layer.is_map else None,
        "start": [number(walk.start) for walk in layer.walks],
    }


def number(value: Fraction | None) -> int | float | None:
    """Return a whole number as int, another as float."""
    if value is None:
        return None
    return value.numerator if value.denominator == 1 else float(value)
