"""The built-in networks: their size and field, and what they reach with which recipe."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.receptive_field import ReceptiveField
from cifar_cnn.analysis.summary import summarize
from cifar_cnn.documents import analysis as documents
from cifar_cnn.errors import counted
from cifar_cnn.models import BUILT_IN
from cifar_cnn.models.usage import USAGE, Usage
from cifar_cnn.report.console import NARROW, times


@dataclass(frozen=True)
class BuiltIn:
    """What is known of a built-in network, for images of 32×32."""

    model: str
    parameters: int
    mult_adds: int
    field: ReceptiveField
    usage: Usage

    def as_dict(self) -> documents.BuiltIn:
        """Return the network's entry in `models --json`."""
        return {
            "model": self.model,
            "parameters": self.parameters,
            "mult_adds": self.mult_adds,
            "features": self.field.features_as_dict(),
            "final": self.field.final_as_dict(),
            "recipe": self.usage.recipe,
            "reached": [
                {"epochs": each.epochs, "accuracy": each.accuracy, "n": each.n}
                for each in self.usage.reached
            ],
        }

    @property
    def cells(self) -> dict[str, str]:
        """What is shown of it, by heading."""
        entry = self.as_dict()
        fields = [
            times(entry["features"]["receptive_field"]),
            times(entry["final"]["receptive_field"]),
        ]
        return {
            "model": self.model,
            "parameters": f"{self.parameters:,}",
            "mult-adds": f"{self.mult_adds / 1e6:.2f} M",
            "field": f"{fields[0]} map\n{fields[1]} output",
            "recipe": self.usage.recipe,
            "reached on CIFAR-10": "\n".join(
                f"{each.accuracy:.2%}, {counted(each.epochs, 'epoch')}, n = {each.n}"
                for each in self.usage.reached
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
    found = summarize(name, budget=Budget())
    assert found.receptive_field is not None
    return BuiltIn(name, found.parameters, found.mult_adds, found.receptive_field, USAGE[name])
