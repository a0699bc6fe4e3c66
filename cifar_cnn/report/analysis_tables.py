"""Print the results of the analysis as tables."""

from rich.console import Console

from cifar_cnn.analysis.results import (
    EffectiveField,
    FieldLayer,
    ReceptiveField,
    Summary,
    Verdict,
    Verification,
)
from cifar_cnn.errors import counted, first_few
from cifar_cnn.report.console import NARROW, known, say, times
from cifar_cnn.report.table import Column, Table, numbers, texts

WITH_PLACES = 72
"""Columns of a console from which the budget's table says where, too."""


def show_summary(console: Console, summary: Summary) -> None:
    """Print the rows, the totals and the verdict on the budget."""
    console.print(parameter_table(summary).on(console))
    totals = summary.totals
    console.print(f"Total parameters: {totals.parameters:,}")
    console.print(f"Trainable: {totals.trainable:,}  non-trainable: {totals.non_trainable:,}")
    console.print(f"Mult-adds: {totals.mult_adds:,} ({_rounded(totals.mult_adds)})")
    console.print(f"Input size (MB): {totals.input_mb:.2f}")
    console.print(f"Forward/backward pass size (MB): {totals.forward_backward_mb:.2f}")
    console.print(f"Parameters size (MB): {totals.parameters_mb:.2f}")
    console.print(f"Estimated total size (MB): {totals.total_mb:.2f}")
    say(console, *(f"warning: {line}" for line in summary.warnings), wrap=True)
    if summary.budget is not None:
        console.print()
        show_verdict(console, summary.budget)


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Print each requirement with its limit, what the network has, and where."""
    console.print(budget_table(verdict, narrow=console.width < NARROW).on(console))
    missed = [item.name for item in verdict.requirements if not item.passed]
    where = f" (limits of {verdict.file})" if verdict.file else ""
    said = f"budget broken: {', '.join(missed)}" if missed else "budget met"
    console.print(said + where, markup=False)


def show_receptive_field(console: Console, result: ReceptiveField, file: str | None = None) -> None:
    """Print each layer's window and field, then the verdict and what to know about it.

    The verdict names the `file` that set the limit.
    """
    console.print(layer_table(result).on(console))
    say(console, *_conclusions(result, file), wrap=True)


def show_verification(console: Console, proof: Verification) -> None:
    """Print whether the proof agreed, where it does not, and which fields have holes."""
    lines = [
        f"gridding: {one.contributing} of {one.total} pixels {one.axis} contribute at {one.layer}"
        for one in proof.gridding
    ]
    wrong = proof.first_disagreement
    if proof.agreed:
        layers, units = counted(proof.layers, "layer"), counted(proof.units, "unit")
        canvases = " and ".join(f"{height}×{width}" for height, width in proof.canvases)
        lines.append(
            f"verified: {layers}, {units} turn NaN exactly where the table says, "
            f"on images of {canvases}"
        )
    elif wrong is None:
        lines.append("not verified: no unit could be compared")
    else:
        lines.append(
            f"not verified: unit {wrong.unit} of {wrong.layer} {wrong.axis} reads pixels "
            f"{wrong.analytic[0]} to {wrong.analytic[1]} by the table, but NaN reaches it "
            f"from {wrong.reached[0]} to {wrong.reached[1]}"
        )
    if proof.clipped:
        lines.append(
            f"clipped: {first_few(proof.clipped, 5)}: fields that reach the border of these images "
            "are shown as far as these go"
        )
    lines += [f"not shown: {each.layer}: {each.reason}" for each in proof.not_shown]
    say(console, *lines, wrap=True)


def show_effective(
    console: Console, found: EffectiveField, weights: str, size: tuple[int, int]
) -> None:
    """Print how large the squares are that hold the mass, and what an image of `size` clips."""
    field = found.theoretical
    (rows, columns), (height, width) = field.receptive_field, size
    sides = ", ".join(
        f"{square.mass:.0%} in {square.side}×{square.side}" for square in found.squares
    )
    where = f"unit {found.unit[0]},{found.unit[1]} of {found.layer}" if found.unit else found.layer
    say(
        console,
        f"effective field of {where} ({weights}, {counted(found.samples, 'image')}): {sides} "
        "pixels",
        f"its theoretical field {rows}×{columns} has rows {field.top} to {field.top + rows - 1}, "
        f"columns {field.left} to {field.left + columns - 1}: the {height}×{width} image clips "
        f"{field.clipped:.0%} of it",
        wrap=True,
    )


def _conclusions(result: ReceptiveField, file: str | None) -> list[str]:
    features, final = result.features, result.final
    _, height, width = result.input_size
    seen = "covers" if final.covers_input else "does not cover"
    field, jump, padding = map(times, (features.receptive_field, features.jump, features.padding))
    lines = [
        f"features ({features.layer}): field {field}, jump {jump}, padding {padding}",
        f"final: field {times(final.receptive_field)}, {seen} the {height}×{width} image",
    ]
    lines += [f"warning: {text}" for text in result.warnings]
    if result.units:
        shown = (f"{name} {times(unit.receptive_field)}" for name, unit in result.units)
        lines.append(f"units: {', '.join(shown)}")
    if result.model == "baseline" and (height, width) == (32, 32):
        lines.append(
            "note: the reference's own table (3, 5, 13, 21, 45) leaves the dilation out: "
            "with it the last convolution has 25 and the output 49"
        )
    verdict = "passed" if result.passed else "failed"
    limit = f"{result.minimum} (limit of {file})" if file else str(result.minimum)
    lines.append(f"{verdict}: {min(final.receptive_field)}, must be above {limit}")
    return lines


def budget_table(verdict: Verdict, *, narrow: bool = False) -> Table:
    """Return the requirements; a narrow one has limit and actual below the name."""
    columns = [Column(""), Column("requirement", whole=True)]
    columns += [] if narrow else numbers("limit", "actual")
    columns.append(Column("where", least=WITH_PLACES))
    rows = []
    for item in verdict.requirements:
        limit, actual = f"{item.limit:,}", known(item.actual)
        both = [f"{item.name}\n{actual} (limit {limit})"] if narrow else [item.name, limit, actual]
        rows.append([item.passed, *both, item.detail])
    return Table(columns, rows)


def parameter_table(summary: Summary) -> Table:
    """Return a row for each module."""
    columns = [
        *texts("layer"),
        *texts("type", least=NARROW),
        *numbers("output"),
        *numbers("parameters", form=",d"),
        *numbers("mult-adds", form=",d", least=NARROW),
    ]
    rows = [
        (row.name, row.type, times(row.output_size) or None, row.parameters, row.mult_adds)
        for row in summary.layers
    ]
    return Table(columns, rows)


def layer_table(result: ReceptiveField) -> Table:
    """Return a row for each layer; equal numbers for both axes are shown once."""
    shape = numbers("output", "kernel", "stride", "pad", "dil", least=NARROW)
    columns = [*texts("layer"), *shape, *numbers("field", "jump"), *numbers("start", least=NARROW)]
    return Table(columns, [_layer_cells(layer) for layer in result.layers])


def _layer_cells(layer: FieldLayer) -> list[str]:
    paddings = (_both(*side) for side in layer.padding)
    window = (layer.kernel, layer.stride, tuple(paddings), layer.dilation)
    return [
        layer.name,
        times(layer.output_size),
        *(_both(*pair) if layer.has_window else "" for pair in window),
        _both(*layer.receptive_field),
        "–" if layer.jump is None else _both(*layer.jump),
        _both(*("–" if start is None else start for start in layer.start)),
    ]


def _rounded(count: int) -> str:
    return f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.2f} M"


def _both(first: object, second: object) -> str:
    return str(first) if first == second else f"{first},{second}"
