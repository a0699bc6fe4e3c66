"""The receptive field of a network: what each layer's units can see of the image.

The convention is that of A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of Convolutional
Neural Networks", Distill (2019): each layer has, along each axis, a size r, a jump j (effective
stride), a start (center of the first unit's field, the top-left pixel's center being 0) and an
effective padding P (how far the first unit's field reaches beyond the left or top edge), so that
unit i sees the pixels from start + i·j - (r - 1) / 2 to start + i·j + (r - 1) / 2. Several paths
give the hull of their fields, and are aligned if they agree on jump and center. Fields are not
clipped to the image.
"""

import itertools
import math
from collections.abc import Collection, Sequence
from fractions import Fraction

import numpy as np

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.field import Field
from cifar_cnn.analysis.layers import Layer, Walk, external_inputs, last_row, layers_of, local_walks
from cifar_cnn.analysis.network import Model, open_model, run_network
from cifar_cnn.analysis.results import Features, FieldLayer, Final, ReceptiveField, Unit, Units
from cifar_cnn.analysis.run import Run
from cifar_cnn.analysis.steps import Value, used_steps
from cifar_cnn.errors import ModelError
from cifar_cnn.results import Pair

Line = tuple[Fraction, ...]
AXIS_NAMES = ("vertically", "horizontally")
MOST_CENTERS = 1 << 12
"""Units whose centers are compared where paths meet."""


def receptive_field(
    model: Model,
    input_size: tuple[int, int] = (32, 32),
    *,
    model_arg: Sequence[str] = (),
    minimum: int = Budget().min_rf,
    assume_pointwise: Collection[str] = (),
) -> ReceptiveField:
    """Compute the receptive field of every layer of a network, in evaluation mode.

    Args:
        model: what `open_network` takes or returns, or a module that takes (N, 3, H, W) float
            images and returns one tensor.
        input_size: (H, W) of the image in pixels.
        model_arg: arguments of the user's class or factory, each `NAME=VALUE`.
        minimum: the final field must be above this, in pixels.
        assume_pointwise: operations unknown to the tool whose output positions each read only the
            same input position.

    Raises:
        ModelError: the network cannot be built, run or followed; the line says what and where.
    """
    name, module, file = open_model(model, model_arg)
    run, output = run_network(module, input_size, assume_pointwise)
    return analyze(name, run, output, minimum).model_copy(update={"checkpoint": file})


def analyze(name: str, run: Run, output: Value, minimum: int) -> ReceptiveField:
    """Return the answer for a run of a network."""
    size = run.image.shape[2], run.image.shape[3]
    layers = layers_of(run)
    features = last_map(run, output, layers)
    calls = [(call, [v.field for v in external_inputs(run, call)]) for call in run.calls.rows]
    gates = [*dict.fromkeys(call.name for call, read in calls if _is_gate(read))]
    misaligned = [line for call, read in calls for line in _misalignments(call.name, read)]
    spanning = [*dict.fromkeys(step.call.name for step in run.steps if step.outcome.spans)]
    walks = last_row(run, output).walks
    is_uniform = features is None or all(walk.is_uniform for walk in features.walks)
    warnings, without_gates = [*misaligned], None
    if features is not None and gates:
        height, width = without_gates = _sizes(local_walks(features))
        warnings.append(
            f"global gate at {', '.join(gates)}: each unit behind it sees the whole "
            f"image; without such gates the field at {features.name} is {height}×{width}"
        )
    if spanning:
        warnings.append(
            f"statistics over the whole map in {', '.join(spanning)}: as usual, they do not count"
        )
    if features is not None and not (is_uniform or misaligned or gates):
        warnings.append(
            f"the field at {features.name} differs from unit to unit: the size is the largest"
        )
    covers = [
        walk.low.max() <= 0 and walk.high.min() >= side - 1
        for walk, side in zip(walks, size, strict=True)
    ]
    return ReceptiveField(
        model=name,
        input_size=(3, *size),
        layers=tuple(_field_layer(layer) for layer in layers),
        features=_features(features, without_gates),
        final=Final(receptive_field=_sizes(walks), covers_input=all(covers)),
        aligned=not misaligned,
        units=_units(features.walks) if features and (misaligned or not is_uniform) else None,
        warnings=tuple(warnings),
        minimum=minimum,
        passed=min(_sizes(walks)) > minimum,
    )


def last_map(run: Run, output: Value, layers: Sequence[Layer]) -> Layer | None:
    """Return the last row with a map that the output depends on, if there is one."""
    if output.made < 0:
        raise ModelError("the network returns its input as it is: there is no layer to analyze")
    used = used_steps(run.steps, output)
    return next((row for row in reversed(layers) if row.is_map and row.value.made in used), None)


def _features(layer: Layer | None, without_gates: Pair | None) -> Features:
    if layer is None:  # the network flattens the image itself
        return Features(receptive_field=(1, 1), jump=(1, 1), padding=(0, 0), layer="input")
    vertical, horizontal = layer.walks
    return Features(
        receptive_field=_sizes(layer.walks),
        jump=(vertical.jump, horizontal.jump),
        padding=(vertical.padding, horizontal.padding),
        layer=layer.name,
        without_gates=without_gates,
    )


def _units(walks: tuple[Walk, Walk]) -> Units:
    """Return three units of a map."""

    def unit(part: float) -> Unit:
        chosen = [(walk, int((len(walk.low) - 1) * part)) for walk in walks]
        height, width = (int(walk.sizes[at]) for walk, at in chosen)
        top, left = (walk.center(at) for walk, at in chosen)
        return Unit(receptive_field=(height, width), start=(top, left))

    return Units(first=unit(0), middle=unit(0.5), last=unit(1))


def _field_layer(layer: Layer) -> FieldLayer:
    vertical, horizontal = layer.walks
    return FieldLayer(
        name=layer.name,
        type=layer.call.type,
        output_size=layer.output_size,
        **vars(layer.window),
        receptive_field=_sizes(layer.walks),
        jump=(vertical.jump, horizontal.jump) if layer.is_map else None,
        start=(vertical.start, horizontal.start),
    )


def _sizes(walks: tuple[Walk, Walk]) -> Pair:
    return walks[0].size, walks[1].size


def _is_gate(inputs: Sequence[Field]) -> bool:
    """Return whether a tensor without a map meets one that has a map."""
    return len({any(f.dim is not None for f in field.families) for field in inputs}) > 1


def _misalignments(name: str, inputs: Sequence[Field]) -> list[str]:
    """Describe where the inputs of a layer of this name differ in jump or in center."""
    periods = (family.period for field in inputs for family in field.families)
    count = min(math.lcm(*periods), MOST_CENTERS)
    axes: dict[str, list[str]] = {}
    for axis, axis_name in enumerate(AXIS_NAMES if len(inputs) > 1 else ()):
        lines = {line for field in inputs if (line := _center_line(field, axis, count))}
        if len(lines) > 1:
            axes.setdefault(_tell_apart(lines), []).append(axis_name)
    return [
        f"paths meet misaligned at {name} {' and '.join(names)}: {lines}"
        for lines, names in axes.items()
    ]


def _center_line(field: Field, axis: int, count: int) -> Line | None:
    """Return the jump and doubled centers of the first units, or None if the channels differ."""
    lines = set()
    for family in field.along(axis):
        if family.dim is not None and family.shift:
            low, high = (np.moveaxis(end, family.dim, 0) for end in family.at(range(count)))
            doubled = (low + high).reshape(count, -1)[:, (low <= high).reshape(count, -1).all(0)]
            lines |= {(family.slope, *centers) for centers in doubled.T.tolist()}
    return lines.pop() if len(lines) == 1 else None


def _tell_apart(lines: Collection[Line]) -> str:
    """Describe each line by its jump, and as few centers as show that the lines differ."""
    counts = itertools.count(1)
    count = next(n for n in counts if len({line[: n + 1] for line in lines}) == len(lines))
    which = "first center" if count == 1 else "centers"
    halved = ((jump, [str(Fraction(c, 2)) for c in doubled[:count]]) for jump, *doubled in lines)
    return " and ".join(sorted(f"jump {jump}, {which} {', '.join(each)}" for jump, each in halved))
