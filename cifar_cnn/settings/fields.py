"""Everything that decides what a run computes, as one frozen, validated object."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from cifar_cnn.recipes import DEFAULT_EPOCHS, DEFAULT_RECIPE
from cifar_cnn.settings.arguments import parse_arguments

MODELS = ("baseline", "compact")
"""The names of the tool's own networks; `models/registry.py` has their classes, in this order."""


class Source(NamedTuple):
    """What settings say of a source of images, which `data/<name>.py` reads."""

    origin: str
    normalization: str = "cifar10"  # unless the settings say otherwise
    chosen_by: tuple[str, ...] = ()  # the settings that decide which images these are


SOURCES = {
    "cifar10": Source("downloaded"),
    "folder": Source("yours", "dataset", ("data_dir", "test_size")),
    "synthetic": Source("drawn"),
}
DEVICES = ("auto", "cpu", "cuda", "mps")
REMOVED = {"ema": 0, "teacher": None}
"""Settings until version 0.2.0, with the values that left training as it is now."""
REMOVED_WITH_TEACHER = ("distill_alpha", "distill_temperature")
"""Settings until version 0.2.0 that had an effect beside a teacher only."""


def used_removed(values: Mapping[str, Any]) -> str | None:
    """Return the line that names a removed setting which has an effect; None without one."""
    for name, default in REMOVED.items():
        if values.get(name, default) != default:
            return (
                f"setting {name} = {values[name]!r} was removed after version 0.2.0: "
                "use that version, or train without it"
            )
    return None


def without_removed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out settings that this version no longer has."""
    return {
        name: value
        for name, value in values.items()
        if name not in REMOVED and name not in REMOVED_WITH_TEACHER
    }


def parse_size(value: object) -> object:
    """Turn ``32``, ``"32x48"`` or ``[3, 32, 48]`` into (height, width); else leave it as it is."""
    if isinstance(value, str) and re.fullmatch(r"\d+(x\d+)?", value):
        height, _, width = value.partition("x")
        return int(height), int(width or height)
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    if isinstance(value, list) and len(value) == 3 and value[0] == 3:  # as documents have it
        return value[1:]
    return value


def _expand(folder: Path) -> Path:
    """Put the user's home for ~; a name that is not UTF-8 could not be kept in settings."""
    if os.fsencode(folder) != str(folder).encode(errors="ignore"):
        raise ValueError("its name is not UTF-8: rename the folder, or give a link to it")
    return Path(os.path.expanduser(folder))  # noqa: PTH111 - Path's own fails where there is no home


def _listed(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("it has to be a list, as ['width=8'] is")  # noqa: TRY004 - pydantic's way
    return value


def _readable(texts: tuple[str, ...]) -> tuple[str, ...]:
    parse_arguments(texts)
    return texts


if TYPE_CHECKING:
    SourceName = str
else:
    SourceName = Literal[tuple(SOURCES)]
Folder = Annotated[Path, AfterValidator(_expand)]
Arguments = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_readable)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
InputSize = Annotated[
    tuple[Pixels, Pixels], BeforeValidator(parse_size, json_schema_input_type=int | str | list[int])
]


class Settings(BaseModel):
    """Everything that decides what a run computes.

    Each field is also a flag of `cifar-cnn train` (`batch_size`: `--batch-size`) and a key of the
    config file. What is left out is neutral: each recipe says how it differs, and
    `resolve_settings` starts from one. Raises pydantic's ValidationError, which that turns into one
    line.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    recipe: str = Field(DEFAULT_RECIPE, description="settings to start from")
    model: str = Field(
        "baseline", description="network: built-in name, module:attr, path.py or path.py:attr"
    )
    model_arg: Arguments = Field(
        (),
        description="argument of your network's class or factory, NAME=VALUE; VALUE is a Python "
        "literal, yes, no or none (all else, and what is in quotes, is text); repeatable",
    )
    input_size: InputSize = Field((32, 32), description="image size, N or HxW (height×width)")

    dataset: SourceName = Field(
        "cifar10",
        description="source of the images: "
        + ", ".join(f"{name} ({source.origin})" for name, source in SOURCES.items()),
    )
    data_dir: Folder = Field(Path("data"), description="folder of the images")
    limit_train: int | None = Field(
        None, ge=1, description="use N training images, as many of each class (a balanced subset)"
    )
    limit_eval: int | None = Field(
        None, ge=1, description="evaluate on N images, as many of each class (a balanced subset)"
    )
    val_size: int = Field(
        0,
        ge=0,
        description="cut N validation images from the training images, the same share of each "
        "class; they choose best.pt",
    )

    test_size: Fraction = Field(
        0.0,
        description="fraction of each class that is the test images, the same always, where "
        "--data-dir has class folders alone",
    )
    normalization: Literal["cifar10", "dataset"] = Field(
        "cifar10",
        description="mean and deviation of the colors that become 0 and 1: cifar10's, or dataset, "
        "those of the training images (folder: dataset unless said, as reference does)",
    )

    epochs: int = Field(
        DEFAULT_EPOCHS, ge=1, le=1_000_000, description="passes over the training images"
    )
    batch_size: int = Field(128, ge=1, le=1_000_000, description="images in a step")
    ghost_batch_size: int = Field(
        0,
        ge=0,
        description="most images normalized by statistics of their own, each such part of a batch "
        "by a thread of its own; 0: the whole batch (built-in networks on a CPU)",
    )
    optimizer: Literal["sgd", "adamw", "muon"] = Field("sgd", description="optimizer")
    lr: float = Field(0.01, gt=0, description="learning rate (onecycle, cosine: its peak)")
    momentum: Fraction = Field(0.9, description="momentum of SGD")
    nesterov: bool = Field(False, description="Nesterov's form of SGD's momentum")
    weight_decay: float = Field(
        0.0, ge=0, description="weight decay, on weights only (not biases, not normalizations)"
    )
    label_smoothing: Fraction = Field(0.0, description="label smoothing")
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="weight of a class in the loss of training: none, or balanced, by which each "
        "class counts as much, however many images it has",
    )
    dropout: Fraction | None = Field(
        None,
        description="dropout probability of a built-in network, or of yours where it has a "
        "parameter `dropout`",
    )
    scheduler: Literal["constant", "step", "onecycle", "cosine"] = Field(
        "constant", description="how the learning rate moves"
    )
    step_size: int = Field(6, ge=1, description="step scheduler: epochs between two drops")
    gamma: float = Field(0.1, gt=0, le=1, description="step scheduler: factor of each drop")
    warmup_epochs: float = Field(
        0.0, ge=0, description="cosine scheduler: epochs in which the learning rate rises first"
    )
    lr_floor: Fraction = Field(
        0.0, description="cosine scheduler: fraction of the learning rate that is left at the end"
    )

    flip: Probability = Field(0.0, description="probability of a horizontal flip")
    shift: int = Field(0, ge=0, description="largest random shift in pixels, reflected border")
    affine: Probability = Field(
        0.0, description="probability of a random shift ±10 %, scale ±10 % and rotation ±15°"
    )
    rotation: float = Field(
        0.0, ge=0, le=180, description="largest random rotation in degrees, reflected border"
    )
    color_jitter: Fraction = Field(
        0.0,
        description="largest random change of brightness, contrast and saturation, as a fraction",
    )
    cutout: Probability = Field(0.0, description="probability of a cut-out square")
    cutout_size: int = Field(16, ge=1, description="side of the cut-out square in pixels")
    mixup: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="largest fraction of another image mixed in, reached halfway through the run",
    )

    seed: int = Field(0, ge=0, lt=2**63, description="seed of every random draw")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic of the network; auto: bf16 where the processor has it"
    )
    threads: int = Field(
        0, ge=0, le=1024, description="threads of one process on a CPU; 0: all cores"
    )
    deterministic: bool = Field(
        False, description="bit-identical runs on CUDA too, where that is slower"
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
        description="where the network runs: auto, cpu, cuda, cuda:1 … or mps",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_removed(cls, values: object) -> object:
        """Accept removed settings, as in files of older versions, if they have no effect."""
        if not isinstance(values, Mapping):
            return values
        if removed := used_removed(values):
            raise ValueError(removed)
        return without_removed(values)

    @model_validator(mode="after")
    def _fits(self) -> "Settings":
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0: set --no-nesterov")
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return them as in the documents that commands print, where sizes are [3, H, W]."""
        return self.model_dump(mode="json") | {"input_size": [3, *self.input_size]}

    def to_toml(self) -> str:
        """Return the settings as TOML that `--config` accepts; unset limits are left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))
