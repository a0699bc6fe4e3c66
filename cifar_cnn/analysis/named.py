"""The networks that a command line names: by a spec, or by a file of weights."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.analysis.network import Model
from cifar_cnn.analysis.receptive_field import receptive_field
from cifar_cnn.analysis.results import ReceptiveField, Summary
from cifar_cnn.analysis.summary import summarize
from cifar_cnn.errors import CheckpointError, counted
from cifar_cnn.settings import Settings, resolve_settings
from cifar_cnn.storage.network import build_stored, is_of_built_in, read_stored

Found = TypeVar("Found", Summary, ReceptiveField)


@dataclass(frozen=True)
class Named:
    """A network that was named.

    Args:
        model: what the analysis takes.
        settings: its own, with what was asked for in their place.
        classes: outputs of a checkpoint's network.
        file: of its weights, if it was named by one.
    """

    model: Model
    settings: Settings
    classes: int | None = None
    file: str | None = None

    @property
    def title(self) -> str:
        """The file and what is in it, for people; empty where no file was named."""
        if self.file is None:
            return ""
        of = f" for {counted(self.classes, 'class')}" if self.classes else ""
        return f"{self.file}: {self.settings.model}{of}"

    def summarize(self, budget: Budget | None, assume_pointwise: Collection[str]) -> Summary:
        """Summarize it under its own name; raises what `summarize` does."""
        found = summarize(
            self.model,
            self.settings.input_size,
            model_arg=self.settings.model_arg,
            budget=budget,
            assume_pointwise=assume_pointwise,
        )
        return self._under_its_name(found)

    def receptive_field(self, minimum: int, assume_pointwise: Collection[str]) -> ReceptiveField:
        """Compute its fields under its own name; raises what `receptive_field` does."""
        found = receptive_field(
            self.model,
            self.settings.input_size,
            model_arg=self.settings.model_arg,
            minimum=minimum,
            assume_pointwise=assume_pointwise,
        )
        return self._under_its_name(found)

    def _under_its_name(self, found: Found) -> Found:
        """Return what was found, of the network's spec instead of its class, with the file."""
        name = {"model": self.settings.model, "checkpoint": self.file}
        return found if self.file is None else found.model_copy(update=name)


def is_file_of_weights(name: str) -> bool:
    """Say whether a network is named by a file of its weights."""
    return name.endswith((".pt", ".pth"))


def network_named(name: str, overrides: Mapping[str, Any], *, of_several: bool = False) -> Named:
    """Return the network of a spec, or that of a checkpoint with its classes and arguments.

    Args:
        name: a spec as `build_model` takes it, or a file of weights.
        overrides: settings by name, before the checkpoint's own; `model` lets the code of a file's
            network run, and says which network a bare state dict is of.
        of_several: whether `model` may be meant for another file than one of a built-in network.

    Raises:
        CheckpointError: the file is unusable, or a bare state dict whose network nothing says.
        RequestError: a setting is invalid, or the network cannot be built.
    """
    if not is_file_of_weights(name):
        return Named(name, resolve_settings({**overrides, "model": name}))
    path = Path(name)
    if of_several and is_of_built_in(path):
        overrides = {key: value for key, value in overrides.items() if key != "model"}
    settings, weights, checkpoint = read_stored(path, overrides)
    if checkpoint is None and "model" not in overrides:
        raise CheckpointError(
            f"{path} is a bare state dict: --model says of which network, as it does not itself"
        )
    classes = len(checkpoint.classes) if checkpoint else None
    model = build_stored(path, settings, classes, weights, checkpoint)
    return Named(model, settings, classes, name)
