"""Open a network by its spec, run, checkpoint or bare state dict."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cnn.data.dataset import REFERENCE, Normalization
from cifar_cnn.errors import CheckpointError, ModelError, NetworkWarning, counted
from cifar_cnn.models.module import move, set_training
from cifar_cnn.models.output import check_output
from cifar_cnn.models.registry import build_checked, build_model, is_built_in, source_file
from cifar_cnn.recipes import read_recipe
from cifar_cnn.runtime import CPU, resolve_precision
from cifar_cnn.settings import Settings, resolve_settings, validate
from cifar_cnn.storage.checkpoint import Checkpoint, load_weights, read_checkpoint, settings_of
from cifar_cnn.storage.files import SOURCE
from cifar_cnn.storage.naming import find_checkpoint, is_spec


@dataclass(frozen=True, eq=False)
class Network:
    """A network and what is known of its use; it is built when `model` is first read."""

    settings: Settings  # for its use; `settings.model` is its spec
    file: Path | None = None  # of its weights; None if they are fresh
    state_dict: Mapping[str, Tensor] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None  # None for a bare state dict
    classes: tuple[str, ...] = ()  # in index order; () if nothing says them
    normalization: Normalization = REFERENCE
    device: torch.device = CPU
    notes: tuple[str, ...] = ()  # what was assumed of a file from elsewhere
    onnx: nn.Module | None = None  # runs the file, if it is an ONNX network

    @cached_property
    def model(self) -> nn.Module:
        """The module; with a file's weights it is in evaluation mode."""
        num_classes = len(self.classes) or None
        if self.onnx is not None:
            check_output(self.onnx, self.settings.input_size, num_classes)
            return self.onnx
        if self.file is None:
            spec, dropout = self.settings.model, self.settings.dropout
            model = build_model(spec, num_classes, dropout, model_arg=self.settings.model_arg)
            return move(model, self.device)
        hint = changed = None
        if self.checkpoint is None and "model" not in self.settings.model_fields_set:
            hint = f"{self.file} is a bare state dict: --model says of which network"
        elif self.checkpoint is not None:
            hint = changed = changed_source(self.file, self.checkpoint, self.settings)
        try:
            model, _ = build_checked(self.settings, num_classes)
            load_weights(model, self.state_dict, self.file)
        except (CheckpointError, ModelError) as error:
            raise type(error)(f"{error}; {hint}" if hint else str(error)) from error
        if changed is not None:
            warnings.warn(changed, NetworkWarning, stacklevel=2)
        set_training(model, False)
        return move(model, self.device)

    @property
    def precision(self) -> str:
        """Its arithmetic on its device: fp32 or bf16."""
        return resolve_precision(self.settings.precision, self.device)

    @property
    def title(self) -> str:
        """The file and what is in it, for people; empty without one."""
        if self.file is None:
            return ""
        of = f" for {counted(len(self.classes), 'class')}" if self.classes else ""
        return f"{self.file}: {self.settings.model}{of}"


def open_network(
    name: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    of_several: bool = False,
) -> Network:
    """Return the network of a spec, or of a run or a file of weights with its own settings.

    Args:
        name: a spec as `build_model` takes it, a run, or a file of weights (`.pt`, `.pth`); a Path
            is a run or a file of weights whatever its name; None is the model of the settings.
        overrides: settings by name, before the file's own; `model` lets the code of a file's
            network run, and names the network of a bare state dict (`baseline` unless given).
        of_several: whether there are other files, for which `model` may be; then it is ignored for
            a file of a built-in network.

    Raises:
        CheckpointError: the file is unusable, or names the user's own code, and they do not.
        RunError: the run has no `model.pt`.
        SettingsError: an override is invalid.
    """
    values = dict(overrides or {})
    if name is None or is_spec(name):
        return Network(resolve_settings(values if name is None else {**values, "model": name}))
    file = find_checkpoint(name)
    content = read_checkpoint(file)
    if not isinstance(content, Checkpoint):
        return Network(validate({**read_recipe("reference"), **values}), file, content)
    if of_several and is_built_in(content.settings.model):
        values.pop("model", None)
    settings, weights = settings_of(content, file, values), content.state_dict
    return Network(settings, file, weights, content, content.classes, content.normalization)


def read_source(settings: Settings) -> bytes | None:
    """Return the content of the file that defines the user's own network; None for built-in."""
    file = source_file(settings.model, settings.model_arg)
    return file.read_bytes() if file else None


def digest(source: bytes) -> str:
    """Return the SHA-256 by which a checkpoint knows its network's source file."""
    return hashlib.sha256(source).hexdigest()


def changed_source(path: Path, checkpoint: Checkpoint, settings: Settings) -> str | None:
    """Return a line if the network's source file has changed since the training, else None.

    It names the run's copy beside `path`, and so does the ModelError if the file is gone.
    """
    if checkpoint.source_sha256 is None:
        return None
    copy = path.parent / SOURCE  # of newer code if the run went on with that
    is_its = copy.is_file() and digest(copy.read_bytes()) == checkpoint.source_sha256
    hint = f"; {copy} is the run's copy of it" if is_its else ""
    try:
        source = read_source(settings)
    except ModelError as error:
        raise ModelError(f"{error}{hint}") from error
    if source is None or digest(source) == checkpoint.source_sha256:
        return None
    return f"the code of {settings.model} is not what {path} was trained with{hint}"
