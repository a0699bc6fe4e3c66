"""`cifar-cnn design`: the largest network within the limits."""

from typing import Annotated, Any

import typer
from rich.console import Console

from cifar_cnn.analysis.budget import read_budget
from cifar_cnn.cli.options import command
from cifar_cnn.report.console import format_amount, say
from cifar_cnn.settings import resolve_settings


@command(input_size="")
def design(
    classes: Annotated[int, typer.Option(min=1)] = 10,
    *,
    console: Console,
    overrides: dict[str, Any],
    limits: dict[str, Any],
) -> tuple[Any, int]:
    """Find the largest network within your limits, without training.

    It varies the width of the built-in network compact. Limits not given come from
    [tool.cifar-cnn.budget] in a pyproject.toml, looked for from the current folder upwards, else
    from the CIFAR-10 brief. Exit code 1 if even the smallest network exceeds a limit.

    Options:
        classes: Number of classes.

    Examples:
        cifar-cnn design --max-params 50000
        cifar-cnn design --max-flash 128kB --max-ram 64kB
        cifar-cnn design --max-mult-adds 10000000 --classes 4 --input-size 64
    """
    budget, input_size = read_budget(limits), resolve_settings(overrides).input_size

    from cifar_cnn.analysis.design import design as find_largest
    from cifar_cnn.report.analysis_tables import show_verdict

    found = find_largest(budget, input_size, num_classes=classes)
    assert found.summary.budget is not None
    show_verdict(console, found.summary.budget)
    if found.has_passed:
        data = "" if classes == 10 else " --dataset folder --data-dir FOLDER"
        size = f" --input-size {input_size[0]}x{input_size[1]}" if "input_size" in overrides else ""
        network = f"--model {found.model} --model-arg {found.model_arg[0]} --recipe best"
        say(console, f"train it: cifar-cnn train {network}{size}{data}")
    else:
        totals, device = found.summary.totals, found.summary.device
        line = (
            f"no member of {found.model} meets the budget; smallest member, {found.model_arg[0]}: "
            f"{totals.parameters:,} parameters, {totals.mult_adds:,} mult-adds, "
            f"{format_amount('max-flash', device.flash_int8)} of flash, "
            f"{format_amount('max-ram', device.ram_int8)} of RAM"
        )
        say(console, line, wrap=True)
    return found, int(not found.has_passed)
