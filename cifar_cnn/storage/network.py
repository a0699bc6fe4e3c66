"""From a file to its network, with its weights: what analysis and inference both begin with."""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cifar_cnn.errors import ChangedSourceWarning, CheckpointError, ModelError
from cifar_cnn.models.registry import build_checked, is_built_in, source_file
from cifar_cnn.recipes import read_recipe
from cifar_cnn.settings import Settings, validate
from cifar_cnn.storage.checkpoint import Checkpoint, load_weights, read_checkpoint, settings_of
from cifar_cnn.storage.files import SOURCE


def read_stored(
    path: Path, overrides: Mapping[str, Any]
) -> tuple[Settings, Mapping[str, Tensor], Checkpoint | None]:
    """Read a checkpoint, or a bare state dict, which has the settings of `reference`.

    Raises:
        CheckpointError: the file is unusable, or names the user's own code, and they do not.
        SettingsError: an override is invalid.
    """
    content = read_checkpoint(path)
    if isinstance(content, Checkpoint):
        return settings_of(content, path, overrides), content.state_dict, content
    return validate({**read_recipe("reference"), **overrides}), content, None


def is_of_built_in(path: Path) -> bool:
    """Say whether a file is a checkpoint of one of the tool's own networks.

    Raises:
        CheckpointError: it is unusable.
    """
    content = read_checkpoint(path)
    return isinstance(content, Checkpoint) and is_built_in(content.model)


def build_stored(
    path: Path,
    settings: Settings,
    num_classes: int | None,
    state_dict: Mapping[str, Tensor],
    checkpoint: Checkpoint | None,
) -> nn.Module:
    """Build the network of a file that has been read, and give it its weights.

    Args:
        path: of the file.
        settings: for the network's use.
        num_classes: outputs that it has to have; None for any number.
        state_dict: its weights.
        checkpoint: the whole content; None for a bare state dict.

    Raises:
        CheckpointError: the weights are not the network's.
        ModelError: it cannot be built.
    """
    changed = changed_source(path, checkpoint, settings) if checkpoint else None
    try:
        model, _ = build_checked(settings, num_classes)
        load_weights(model, state_dict, path)
    except (CheckpointError, ModelError) as error:
        if changed is None:
            raise
        raise type(error)(f"{error}; {changed}") from error
    if changed is not None:
        warnings.warn(changed, ChangedSourceWarning, stacklevel=2)
    return model


def read_source(settings: Settings) -> bytes | None:
    """Return the file that the user's own network stands in; None for a built-in one.

    Raises:
        ModelError: it cannot be found.
    """
    file = source_file(settings.model, settings.model_arg)
    return file.read_bytes() if file else None


def digest(source: bytes) -> str:
    """Return the SHA-256 by which a checkpoint knows its network's source file."""
    return hashlib.sha256(source).hexdigest()


def changed_source(path: Path, checkpoint: Checkpoint, settings: Settings) -> str | None:
    """Return the line that says that the network's source file has changed; None if it has not.

    Args:
        path: of the checkpoint; the run's copy of the file lies beside it.
        checkpoint: of a run.
        settings: that say where the file is now.

    Raises:
        ModelError: it is gone; the line names the copy.
    """
    if checkpoint.source_sha256 is None:
        return None
    copy = path.parent / SOURCE
    kept = f"{copy} is the run's copy of"
    if not copy.is_file():
        kept = f"the run kept a copy, {SOURCE}, of"
    elif digest(copy.read_bytes()) != checkpoint.source_sha256:  # the run went on with it
        kept = f"the run's copy, {copy}, is not of"
    try:
        source = read_source(settings)
    except ModelError as error:
        raise ModelError(f"{error}; {kept} it") from error
    if source is None or digest(source) == checkpoint.source_sha256:
        return None
    return f"the code of {settings.model} is not what {path} was trained with: {kept} that"
