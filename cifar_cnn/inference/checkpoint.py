"""The `.pt` files: what is in them, and how they prove that they are whole.

A checkpoint is the zip archive of `torch.save` whose archive comment holds a SHA-256 digest of all
bytes before it. So plain `torch.load(weights_only=True)` reads it, and a changed, missing or added
byte shows. The payload names its format; a payload that does so without a digest is damaged.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from cifar_cnn.data.dataset import MEAN, STD
from cifar_cnn.errors import CheckpointError, SettingsError
from cifar_cnn.inference.files import write_atomically
from cifar_cnn.models.registry import is_built_in
from cifar_cnn.settings import Settings, validate

FORMAT: Final = "cifar-cnn/1"

_ZIP_START = b"PK\x03\x04"
_MARKER = b"cifar-cnn sha256:"
_DIGEST_LENGTH = 64


class Checkpoint(BaseModel):
    """A trained network: all that evaluation, prediction, export and resuming need.

    Args:
        model: the spec it was built from.
        classes: names in index order.
        mean, std: of the normalisation, for R, G and B in 0–1.
        settings: of the run.
        metrics: of the epoch it was taken after, named as in metrics.csv.
        state_dict: parameters and buffers.
        training: optimizer and progress, in `last.pt` and `previous.pt` only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    format: Literal["cifar-cnn/1"] = FORMAT
    model: str
    classes: tuple[str, ...]
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    settings: Settings
    metrics: dict[str, int | float | str]
    state_dict: dict[str, Tensor]
    training: dict[str, Any] | None = None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint to `path`, whole or not at all.

    Raises:
        OSError: it could not be written; what was at `path` is unharmed.
    """
    payload = dict(checkpoint) | {"settings": checkpoint.settings.model_dump(mode="json")}
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    content = buffer.getvalue()
    comment_length = len(_MARKER) + _DIGEST_LENGTH
    content = content[:-2] + comment_length.to_bytes(2, "little") + _MARKER
    write_atomically(path, content + hashlib.sha256(content).hexdigest().encode())


def read_checkpoint(path: Path) -> Checkpoint | dict[str, Tensor]:
    """Read a checkpoint of this tool, or a bare state dict from elsewhere.

    Raises:
        CheckpointError: the file is missing, damaged, or neither of the two.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    if not content.startswith(_ZIP_START):
        raise CheckpointError(f"{path} is not a checkpoint: not a file of torch.save")
    is_sealed = _check_seal(path, content)
    try:
        payload = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint, or is damaged: torch.load refuses it"
        ) from error
    if isinstance(payload, dict) and "format" in payload:
        if not is_sealed:
            raise CheckpointError(f"{path} is damaged: its digest is missing")
        return _validate(path, payload)
    if _is_state_dict(payload):
        return dict(payload)
    inside = (
        [key for key, value in payload.items() if _is_state_dict(value)]
        if (isinstance(payload, dict))
        else []
    )
    hint = f": save its {inside[0]!r} alone" if inside else ""
    raise CheckpointError(f"{path} holds neither a checkpoint nor a state dict{hint}")


def settings_of(checkpoint: Checkpoint, source: Path, overrides: Mapping[str, Any]) -> Settings:
    """Return a checkpoint's settings for its use, with `overrides` in their place.

    The device and the limit of the run's own evaluation are not taken over, and another data set
    than the run's does not lie in the run's `data_dir`.

    Raises:
        CheckpointError: its network is the user's own code, which `overrides` do not name again.
        SettingsError: an override is invalid.
    """
    if "model" not in overrides and not is_built_in(checkpoint.model):
        raise CheckpointError(
            f"{source} was trained with --model {checkpoint.model}: "
            "pass that again to let its code run"
        )
    own = checkpoint.settings.model_dump(exclude={"device", "limit_eval"})
    if overrides.get("dataset", own["dataset"]) != own["dataset"]:
        del own["data_dir"]
    return validate({**own, **overrides})


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor], source: Path) -> None:
    """Load `state_dict` into `model`.

    Raises:
        CheckpointError: names or shapes differ; the message names the first that does.
    """
    own = model.state_dict()
    for name in [*own, *state_dict]:
        if name not in state_dict or name not in own:
            problem = "is missing from it" if name in own else "is not in the network"
            raise CheckpointError(f"{source} belongs to another network: {name} {problem}")
        if own[name].shape != state_dict[name].shape:
            raise CheckpointError(
                f"{source} belongs to another network: {name} is {_shape(state_dict[name])} in it, "
                f"{_shape(own[name])} in the network"
            )
    model.load_state_dict(state_dict)


def _check_seal(path: Path, content: bytes) -> bool:
    """Say whether the file carries a digest, which must then be right."""
    body, digest = content[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
    if not body.endswith(_MARKER):
        return False
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise CheckpointError(f"{path} is damaged: its digest does not match its content")
    return True


def _validate(path: Path, payload: dict[str, Any]) -> Checkpoint:
    if payload["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {payload['format']!r}, this version reads {FORMAT!r}"
        )
    try:
        settings = validate(payload.get("settings") or {})
        return Checkpoint.model_validate(payload | {"settings": settings})
    except (ValidationError, SettingsError) as error:
        raise CheckpointError(f"{path} holds a checkpoint that this version cannot read") from error


def _is_state_dict(payload: object) -> bool:
    return (
        isinstance(payload, Mapping)
        and bool(payload)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in payload.items())
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "a number"
