"""The built-in networks, for people and as a document."""

from rich.console import Console

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.results import Features, Final
from cifar_cnn.analysis.summary import summarize
from cifar_cnn.errors import counted
from cifar_cnn.models import BUILT_IN
from cifar_cnn.report.console import NARROW, times
from cifar_cnn.report.table import Table, numbers, texts
from cifar_cnn.results import Result, Share


class Reached(Result):
    """Mean test accuracy on CIFAR-10, as JPEG, of n runs after their last epoch."""

    epochs: int
    accuracy: Share
    n: int


class BuiltIn(Result):
    """A built-in network: its size and field for 32×32 images, its recipe and accuracy."""

    model: str
    parameters: int
    mult_adds: int
    features: Features
    final: Final
    recipe: str
    reached: tuple[Reached, ...]

    @property
    def cells(self) -> list[str]:
        """The row that people read."""
        at_map, at_output = (times(each.receptive_field) for each in (self.features, self.final))
        reached = [
            f"{each.accuracy:.2%}, {counted(each.epochs, 'epoch')}, n = {each.n}"
            for each in self.reached
        ]
        return [
            self.model,
            f"{self.parameters:,}",
            f"{self.mult_adds / 1e6:.2f} M",
            f"{at_map} map\n{at_output} output",
            self.recipe,
            "\n".join(reached),
        ]


def built_in_networks() -> list[BuiltIn]:
    """Return what is known of each built-in network."""
    return [_look_at(name) for name in BUILT_IN]


def show_models(console: Console, networks: list[BuiltIn]) -> None:
    """Print a table of them, or on a narrow screen a paragraph each."""
    columns = [
        *texts("model"),
        *numbers("parameters", "mult-adds", "field"),
        *texts("recipe", "reached on CIFAR-10"),
    ]
    rows = [network.cells for network in networks]
    if console.width >= NARROW:
        console.print(Table(columns, rows).on(console))
    else:
        headings = [f"  {column.heading.removesuffix(' on CIFAR-10')}" for column in columns]
        for name, *cells in rows:
            facts = [*zip(headings[1:], cells, strict=True)]
            console.print(name, Table(texts("", ""), facts).on(console), sep="\n")
    console.print("Accuracy on the test images, as JPEG: means of n runs after the last epoch.")


def _look_at(name: str) -> BuiltIn:
    found, network = summarize(name, budget=Budget()), BUILT_IN[name]
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
        recipe=network.recipe,
        reached=tuple(Reached(epochs=e, accuracy=a, n=n) for e, a, n in network.reached),
    )
