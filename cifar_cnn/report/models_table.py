"""The built-in networks: their size and field, and what they reach with which recipe."""

from rich.console import Console
from rich.table import Table

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.results import Features, Final
from cifar_cnn.analysis.summary import summarize
from cifar_cnn.errors import counted
from cifar_cnn.models import BUILT_IN
from cifar_cnn.models.usage import USAGE, Reached
from cifar_cnn.report.console import NARROW, times
from cifar_cnn.results import Result


class BuiltIn(Result):
    """What is known of a built-in network, for images of 32×32, and what it reaches."""

    model: str
    parameters: int
    mult_adds: int
    features: Features
    final: Final
    recipe: str
    reached: tuple[Reached, ...]

    @property
    def cells(self) -> dict[str, str]:
        """What is shown of it, by heading."""
        at_map, at_output = (times(each.receptive_field) for each in (self.features, self.final))
        return {
            "model": self.model,
            "parameters": f"{self.parameters:,}",
            "mult-adds": f"{self.mult_adds / 1e6:.2f} M",
            "field": f"{at_map} map\n{at_output} output",
            "recipe": self.recipe,
            "reached on CIFAR-10": "\n".join(
                f"{each.accuracy:.2%}, {counted(each.epochs, 'epoch')}, n = {each.n}"
                for each in self.reached
            ),
        }


def built_in_networks() -> list[BuiltIn]:
    """Return what is known of each built-in network."""
    return [_look_at(name) for name in BUILT_IN]


def show_models(console: Console, networks: list[BuiltIn]) -> None:
    """Print a table of them, or on a narrow screen a paragraph each."""
    rows = [network.cells for network in networks]
    if console.width < NARROW:
        for row in rows:
            _show_paragraph(console, row)
    else:
        table = Table(box=None, pad_edge=False)
        for heading in rows[0]:
            right = heading in {"parameters", "mult-adds", "field"}
            table.add_column(heading, justify="right" if right else "left")
        for row in rows:
            table.add_row(*row.values())
        console.print(table)
    console.print("Accuracy on the test images, as JPEG: means of n runs after the last epoch.")


def _show_paragraph(console: Console, row: dict[str, str]) -> None:
    console.print(row["model"])
    table = Table.grid(padding=(0, 2))
    for heading, cell in list(row.items())[1:]:
        table.add_row(f"  {heading.removesuffix(' on CIFAR-10')}", cell)
    console.print(table)


def _look_at(name: str) -> BuiltIn:
    found, usage = summarize(name, budget=Budget()), USAGE[name]
    verdict = found.budget
    assert verdict is not None
    assert verdict.features is not None
    assert verdict.final is not None
    return BuiltIn(
        model=name,
        parameters=found.totals.parameters,
        mult_adds=found.totals.mult_adds,
        features=verdict.features,
        final=verdict.final,
        recipe=usage.recipe,
        reached=usage.reached,
    )
