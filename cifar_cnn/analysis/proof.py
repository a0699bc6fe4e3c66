"""The outcome of a numeric proof, unit by unit."""

from dataclasses import dataclass

from cifar_cnn.documents import analysis as documents

Size = tuple[int, int]


@dataclass(frozen=True)
class Checked:
    """One unit along one axis: its field, clipped to the strip, and what the gradient reached."""

    layer: str
    axis: str
    unit: int
    analytic: tuple[int, int]
    reached: tuple[int, int]
    contributing: int

    @property
    def agrees(self) -> bool:
        """Whether both end at the same pixels."""
        return self.analytic == self.reached

    @property
    def total(self) -> int:
        """Pixels from one end to the other, holes included."""
        return self.analytic[1] - self.analytic[0] + 1

    def as_dict(self) -> documents.CheckedUnit:
        """Return it as in `receptive-field --verify --json`."""
        return {
            "layer": self.layer,
            "axis": self.axis,
            "unit": self.unit,
            "analytic": list(self.analytic),
            "reached": list(self.reached),
            "contributing": self.contributing,
        }


@dataclass(frozen=True)
class Verification:
    """The outcome of the proof; `skipped` layers see everything there is, or nothing at all."""

    checked: tuple[Checked, ...]
    skipped: tuple[str, ...]
    strips: tuple[Size, Size]

    @property
    def first_disagreement(self) -> Checked | None:
        """The first unit whose field is not what the gradient shows."""
        return next((unit for unit in self.checked if not unit.agrees), None)

    @property
    def agreed(self) -> bool:
        """Whether every unit checked agrees, and any was."""
        return bool(self.checked) and self.first_disagreement is None

    @property
    def gridded(self) -> tuple[Checked, ...]:
        """The last unit of each layer and axis whose field has holes."""
        last = {(unit.layer, unit.axis): unit for unit in self.checked}
        return tuple(unit for unit in last.values() if unit.contributing < unit.total)

    def as_dict(self) -> documents.Verification:
        """Return it as in `receptive-field --verify --json`."""
        wrong = self.first_disagreement
        return {
            "agreed": self.agreed,
            "layers": len({unit.layer for unit in self.checked}),
            "units": len(self.checked),
            "skipped": list(self.skipped),
            "strips": [list(strip) for strip in self.strips],
            "first_disagreement": wrong.as_dict() if wrong else None,
            "gridding": [
                {
                    "layer": unit.layer,
                    "axis": unit.axis,
                    "contributing": unit.contributing,
                    "total": unit.total,
                }
                for unit in self.gridded
            ],
        }
