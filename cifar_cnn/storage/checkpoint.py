"""Read and write checkpoints: the content of the `.pt` files.

A checkpoint is a sealed archive (see `archive`): plain `torch.load(weights_only=True)` reads it,
and a changed, missing or added byte shows. The payload names its format; a payload that does so
without a digest is damaged.
"""

import re
import unicodedata
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from cifar_cnn.data.dataset import MEAN, STD, Normalization
from cifar_cnn.errors import LONGEST, CheckpointError, NetworkWarning, SettingsError
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import weights_of
from cifar_cnn.models.registry import is_built_in
from cifar_cnn.settings import SOURCES, Settings, check_removed, validate, without_removed
from cifar_cnn.storage.archive import UnreadableArchiveError, has_seal, load_archive, save_archive

_WRAPPER: Final = re.compile(r"^(module|model|net|_orig_mod)\.|(?<=\.)_orig_mod\.")
"""Prefixes that DataParallel, training frameworks and torch.compile add to names of weights."""
_EXPORTED: Final = {".onnx": "an ONNX network", ".safetensors": "a file of safetensors"}
FORMAT: Final = "cifar-cnn/1"
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ClassName = Annotated[str, AfterValidator(partial(unicodedata.normalize, "NFC"))]
"""File systems differ in the Unicode form of a folder's name."""


class Checkpoint(BaseModel):
    """A trained network: all that evaluation, prediction, export and resuming need."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    format: Literal["cifar-cnn/1"] = FORMAT
    model: str
    classes: tuple[ClassName, ...] = Field(min_length=1)  # in index order
    mean: tuple[Finite, Finite, Finite] = MEAN
    std: tuple[Positive, Positive, Positive] = STD
    settings: Settings
    metrics: dict[str, int | float | str]  # a row of metrics.csv
    state_dict: dict[str, Tensor]
    source_sha256: str | None = None  # of the file that defines the user's own network
    test_sha256: str | None = None  # of the test images' names, if they are cut from class folders
    training: dict[str, Any] | None = None  # optimizer and progress, in last.pt and previous.pt

    @property
    def normalization(self) -> Normalization:
        """Mean and deviation of the images that the network takes."""
        return Normalization(self.mean, self.std)


OF_FORMER_COMPACT = "middle.0.skip"
"""A weight of the gated network that was called `compact` until 0.1.0, and of no other."""


def pack(checkpoint: Checkpoint) -> bytes:
    """Return the content of the checkpoint's file."""
    payload = dict(checkpoint) | {"settings": checkpoint.settings.model_dump(mode="json")}
    return save_archive(payload)


def read_checkpoint(path: Path, *, to_train: bool = False) -> Checkpoint | dict[str, Tensor]:
    """Read a checkpoint of this tool, or a bare state dict from elsewhere.

    A run that used a setting which this version no longer has is refused if it is `to_train` on.
    """
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is not a checkpoint: not a file")
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    if kind := _EXPORTED.get(path.suffix.lower()):
        raise CheckpointError(
            f"{path} is {kind}, not a checkpoint: give the weights that it was made from, as the "
            "run's model.pt"
        )
    try:
        payload = load_archive(content)
    except UnreadableArchiveError as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint: {error}") from error
    entries = _entries(payload)
    if "format" in entries:
        if not has_seal(content):
            raise CheckpointError(f"{path} is damaged: its digest is missing")
        return _validate(path, entries, to_train=to_train)
    if _is_state_dict(payload):
        return entries
    inside = [key for key, value in entries.items() if _is_state_dict(value)]
    hint = f": save its {inside[0]!r} alone" if inside else ""
    raise CheckpointError(f"{path} holds neither a checkpoint nor a state dict{hint}")


def check_code(checkpoint: Checkpoint, source: Path, overrides: Mapping[str, Any]) -> str | None:
    """Raise an error unless `overrides` permit the code that the checkpoint names.

    Return the line that names the arguments which the file gives to that code, if any. They could
    be anything, such as a path to load from. They are not refused, as they are part of what was
    trained, and users would copy them from the refusal.
    """
    stored = checkpoint.settings
    model = overrides.get("model", stored.model)
    if "model" not in overrides and not is_built_in(model):
        raise CheckpointError(
            f"{source} was trained with --model {model}: pass that again to let its code run"
        )
    if "model_arg" in overrides or not stored.model_arg or is_built_in(model):
        return None
    return f"arguments from the checkpoint: {', '.join(stored.model_arg)}"


def settings_of(checkpoint: Checkpoint, source: Path, overrides: Mapping[str, Any]) -> Settings:
    """Return a checkpoint's settings for its use, with `overrides` in their place.

    They leave out device, threads and `limit_eval`, and, if `overrides` name another data set, the
    settings that choose the run's images. A warning names arguments for the user's own code.
    """
    if arguments := check_code(checkpoint, source, overrides):
        warnings.warn(arguments, NetworkWarning, stacklevel=2)
    own = checkpoint.settings.model_dump(exclude={"device", "threads", "limit_eval"})
    if overrides.get("dataset", own["dataset"]) != own["dataset"]:
        of_sources = {name for source in SOURCES.values() for name in source.chosen_by}
        own = {name: own[name] for name in own if name not in of_sources}
    return validate({**own, **overrides})


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor], source: Path) -> None:
    """Load `state_dict` into `model`, without the names that wrappers of torch add."""
    if OF_FORMER_COMPACT in state_dict and is_built_in(model):
        raise CheckpointError(
            f"{source} holds the network that was `compact` until version 0.1.0, which is gone: "
            "train the present one with --model compact --recipe best"
        )
    own = weights_of(model)
    counters = {n: own[n] for n in own if n.endswith("num_batches_tracked")}  # old files lack them
    state_dict = {**counters, **_unwrapped(state_dict, own)}
    missing = [f"{name} is missing from it" for name in own if name not in state_dict]
    surplus = [f"{name} is not in the network" for name in state_dict if name not in own]
    problems = [*missing[:1], *surplus[:1]]
    for name in own if not problems else ():
        here, there = _describe(state_dict[name]), _describe(own[name])
        if here != there:
            problems.append(f"{name} is {here} in it, {there} in the network")
    if problems:
        differences = ", ".join(problems[:2])
        raise CheckpointError(f"{source} belongs to another network: {differences}")
    with guarded(f"the network cannot load {source}", CheckpointError, model):
        nn.Module.load_state_dict(model, state_dict)


def _unwrapped(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights without as many wrappers' prefixes as make the most names match."""
    best = weights
    while True:
        stripped = {_WRAPPER.sub("", name): value for name, value in weights.items()}
        if stripped.keys() == weights.keys() or len(stripped) < len(weights):
            return best
        weights = stripped
        best = max(best, weights, key=lambda names: len(own.keys() & names.keys()))


def _validate(path: Path, payload: dict[str, Any], *, to_train: bool) -> Checkpoint:
    version = payload["format"]
    if not isinstance(version, str) or version != FORMAT:
        name = repr(version[:LONGEST]) if isinstance(version, str) else "none that is known"
        raise CheckpointError(f"{path} has format {name}, this version reads {FORMAT!r}")
    settings = _entries(payload.get("settings"))
    unreadable = CheckpointError(f"{path} holds a checkpoint that this version cannot read")
    if not settings or not _is_plain(settings):
        raise unreadable
    try:
        if to_train:
            check_removed(settings)
    except SettingsError as error:
        raise CheckpointError(f"{path} cannot be resumed: {error}") from error
    try:
        known = validate(without_removed(settings))
        return Checkpoint.model_validate(payload | {"settings": known})
    except (ValidationError, SettingsError):
        raise unreadable from None  # to show a foreign value may take forever


def _entries(payload: object) -> dict[Any, Any]:
    """Return a plain dict, without attributes that a pickle gave to an OrderedDict."""
    return dict(dict.items(payload)) if isinstance(payload, dict) else {}


def _is_state_dict(payload: object) -> bool:
    entries = _entries(payload)
    return bool(entries) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in entries.items()
    )


def _is_plain(settings: Mapping[Any, Any]) -> bool:
    """Return whether all values are single or flat lists, so that a message can show them."""
    parts = list(settings)
    for value in settings.values():
        parts += value if isinstance(value, list) else [value]
    return all(isinstance(part, str | int | float | None) for part in parts)


def _describe(tensor: Tensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "a number"
    return shape if tensor.is_floating_point() else f"{shape}, whole numbers"
