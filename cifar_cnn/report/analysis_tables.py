"""Print the results of the analysis as tables."""

from collections.abc import Sequence
from functools import partial

from rich.console import Console

from cifar_cnn.analysis.results import (
    EffectiveField,
    FieldLayer,
    ReceptiveField,
    Requirement,
    Summary,
    Verdict,
    Verification,
)
from cifar_cnn.errors import counted, first_few
from cifar_cnn.report.console import (
    NARROW,
    Column,
    Table,
    format_amount,
    format_sides,
    say,
)

WITH_PLACES = 72
"""Columns of a console from which the budget's table says where, too."""


def show_summary(console: Console, summary: Summary) -> None:
    """Print the rows, the totals and the verdict on the budget."""
    parameter_table(summary).show(console)
    totals, count, memory = summary.totals, summary.totals.mult_adds, summary.device
    rounded = f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.2f} M"
    say(
        console,
        f"Total parameters: {totals.parameters:,}",
        f"Trainable: {totals.trainable:,}  non-trainable: {totals.non_trainable:,}",
        f"Mult-adds: {count:,} ({rounded})",
        f"Input size (MB): {totals.input_mb:.2f}",
        f"Forward/backward pass size (MB): {totals.forward_backward_mb:.2f}",
        f"Parameters size (MB): {totals.parameters_mb:.2f}",
        f"Estimated total size (MB): {totals.total_mb:.2f}",
        f"Flash (KiB): {memory.flash_int8 / 1024:,.1f} int8, {memory.flash_fp32 / 1024:,.1f} fp32",
        f"RAM (KiB): {memory.ram_int8 / 1024:,.1f} int8, {memory.ram_fp32 / 1024:,.1f} fp32",
        f"RAM peak: {memory.peak}",
        *(f"warning: {line}" for line in summary.warnings),
        wrap=True,
    )
    if summary.budget is not None:
        console.print()
        show_verdict(console, summary.budget)


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Print the requirements, and whether the budget is met."""
    budget_table(verdict, narrow=console.width < NARROW).show(console)
    missed = [item.name for item in verdict.requirements if not item.passed]
    source = f" (limits of {verdict.file})" if verdict.file else ""
    result = f"budget broken: {', '.join(missed)}" if missed else "budget met"
    console.print(result + source, markup=False)


def show_receptive_field(console: Console, result: ReceptiveField, file: str | None = None) -> None:
    """Print each layer's window and field, then the verdict and what to know about it.

    The verdict names the `file` that set the limit.
    """
    layer_table(result).show(console)
    features, final, size = result.features, result.final, result.input_size[1:]
    covers = "covers" if final.covers_input else "does not cover"
    sides = features.receptive_field, features.jump, features.padding, final.receptive_field, size
    field, jump, padding, final_field, image = map(format_sides, sides)
    lines = [
        f"features ({features.layer}): field {field}, jump {jump}, padding {padding}",
        f"final: field {final_field}, {covers} the {image} image",
    ]
    lines += [f"warning: {text}" for text in result.warnings]
    if result.units:
        fields = (f"{name} {format_sides(unit.receptive_field)}" for name, unit in result.units)
        lines.append(f"units: {', '.join(fields)}")
    if result.model == "baseline" and size == (32, 32):
        lines.append(
            "note: the reference's own table (3, 5, 13, 21, 45) leaves the dilation out: "
            "with it the last convolution has 25 and the output 49"
        )
    verdict = "passed" if result.passed else "failed"
    limit = f"{result.minimum} (limit of {file})" if file else str(result.minimum)
    lines.append(f"{verdict}: {min(final.receptive_field)}, must be above {limit}")
    say(console, *lines, wrap=True)


def show_verification(console: Console, proof: Verification) -> None:
    """Print whether the proof agrees, where it does not, and which fields have holes."""
    lines = [
        f"gridding: {one.contributing} of {one.total} pixels {one.axis} contribute at {one.layer}"
        for one in proof.gridding
    ]
    wrong = proof.first_disagreement
    if proof.agreed:
        images = " and ".join(map(format_sides, proof.canvases))
        lines.append(
            f"verified: {counted(proof.layers, 'layer')}, {counted(proof.units, 'unit')} turn NaN "
            f"exactly where the table says, on images of {images}"
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
    console: Console, effective: EffectiveField, weights: str, size: tuple[int, int]
) -> None:
    """Print how large the squares are that hold the mass, and what an image of `size` clips."""
    field, unit, layer = effective.theoretical, effective.unit, effective.layer
    rows, columns = field.receptive_field
    sides = ", ".join(f"{each.mass:.0%} in {each.side}×{each.side}" for each in effective.squares)
    place = f"unit {unit[0]},{unit[1]} of {layer}" if unit else layer
    say(
        console,
        f"effective field of {place} ({weights}, {counted(effective.samples, 'image')}): {sides} "
        "pixels",
        f"its theoretical field {rows}×{columns} has rows {field.top} to {field.top + rows - 1}, "
        f"columns {field.left} to {field.left + columns - 1}: the {format_sides(size)} image clips "
        f"{field.clipped:.0%} of it",
        wrap=True,
    )


def budget_table(verdict: Verdict, *, narrow: bool = False) -> Table:
    """Return the requirements; a narrow one has limit and actual below the name."""
    columns = [
        Column("", "passed"),
        Column("requirement", "name", whole=True),
        Column("limit", lambda item: format_amount(item.name, item.limit), right=True),
        Column("actual", lambda item: format_amount(item.name, item.actual), right=True),
        Column("where", "detail", least=WITH_PLACES),
    ]
    if narrow:
        columns[1:4] = [Column("requirement", _format_requirement, whole=True)]
    return Table(columns, verdict.requirements)


def _format_requirement(item: Requirement) -> str:
    limit, actual = (format_amount(item.name, each) for each in (item.limit, item.actual))
    return f"{item.name}\n{actual} (limit {limit})"


def parameter_table(summary: Summary) -> Table:
    """Return a row for each module."""
    columns = [
        Column("layer", "name"),
        Column("type", least=NARROW),
        Column("output", lambda row: format_sides(row.output_size) or None, right=True),
        Column("parameters", form=",d", right=True),
        Column("mult-adds", "mult_adds", ",d", right=True, least=NARROW),
    ]
    return Table(columns, summary.layers)


def layer_table(result: ReceptiveField) -> Table:
    """Return a row for each layer; equal numbers for both axes are shown once."""
    wide = partial(Column, right=True, least=NARROW)
    columns = [
        Column("layer", "name"),
        wide("output", lambda layer: format_sides(layer.output_size)),
        wide("kernel", partial(_format_window, "kernel")),
        wide("stride", partial(_format_window, "stride")),
        wide("pad", partial(_format_window, "padding")),
        wide("dil", partial(_format_window, "dilation")),
        Column("field", lambda layer: _format_axes(layer.receptive_field), right=True),
        Column("jump", lambda layer: layer.jump and _format_axes(layer.jump), right=True),
        wide("start", lambda layer: _format_axes(layer.start)),
    ]
    return Table(columns, result.layers)


def _format_window(name: str, layer: FieldLayer) -> str:
    return _format_axes(getattr(layer, name)) if layer.has_window else ""


def _format_axes(pair: Sequence[object]) -> str:
    """Return numbers of both axes: one if they are equal; `1,2` for the two sides of a padding."""
    vertical, horizontal = (
        _format_axes(each) if isinstance(each, tuple) else "–" if each is None else str(each)
        for each in pair
    )
    return vertical if vertical == horizontal else f"{vertical},{horizontal}"
