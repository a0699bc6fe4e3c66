"""What a run is: one frozen, validated object, and how recipe, file and command line make it."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from cifar_cnn.errors import SettingsError, did_you_mean, one_line, plain_reason
from cifar_cnn.recipes import DEFAULT_EPOCHS, DEFAULT_RECIPE, read_recipe

FOR_BUILT_IN = ("dropout", "ghost_batch_size")
"""Settings of recipes that reach built-in networks."""

DEVICES = ("auto", "cpu", "cuda", "mps")


def parse_size(value: object) -> object:
    """Turn ``32`` or ``"32x48"`` into (height, width); anything else is left to validation."""
    if isinstance(value, str) and re.fullmatch(r"\d+(x\d+)?", value):
        height, _, width = value.partition("x")
        return int(height), int(width or height)
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    return value


def _expand(folder: Path) -> Path:
    """Put the user's home for ~; a name that is not UTF-8 could not be kept in settings."""
    if os.fsencode(folder) != str(folder).encode(errors="ignore"):
        raise ValueError("its name is not UTF-8: rename the folder, or give a link to it")
    return Path(os.path.expanduser(folder))  # noqa: PTH111 - Path's own fails where there is no home


Folder = Annotated[Path, AfterValidator(_expand)]
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
    input_size: InputSize = Field((32, 32), description="image height and width, N or HxW")

    dataset: Literal["cifar10", "folder", "synthetic"] = Field(
        "cifar10",
        description="source of the images: cifar10 (downloaded), folder (yours), synthetic (drawn)",
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
        0.0, description="cosine scheduler: share of the learning rate that is left at the end"
    )
    ema: Fraction = Field(
        0.0,
        description="decay of a moving average of the weights, which becomes the final model; "
        "0: the weights themselves",
    )

    teacher: str | None = Field(
        None, description="network to learn from: a model.pt, module:attr or path.py:attr"
    )
    distill_alpha: Probability = Field(0.5, description="share of the teacher in the loss")
    distill_temperature: float = Field(
        4.0, gt=0, description="what logits are divided by where teacher and network are compared"
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
        0.0, description="largest random change of brightness, contrast and saturation, as a share"
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

    @model_validator(mode="after")
    def _fits(self) -> "Settings":
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0: set --no-nesterov")
        return self

    def to_toml(self) -> str:
        """Return the settings as TOML that `--config` accepts; unset limits are left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def resolve_settings(
    overrides: Mapping[str, Any] | None = None, config: Path | None = None
) -> Settings:
    """Merge neutral defaults, a recipe, a config file and overrides, each beating the one before.

    The recipe is the one named in `overrides`, else in the config file, else `tuned`.

    Raises:
        SettingsError: a name is unknown, a value invalid, or the config file unreadable.
    """
    return complete(given_settings(overrides, config))


def given_settings(
    overrides: Mapping[str, Any] | None = None, config: Path | None = None
) -> dict[str, Any]:
    """Return what was asked for, unvalidated: a named recipe's settings, the file's, overrides.

    Raises:
        SettingsError: the recipe is unknown, or the config file unreadable.
    """
    given = {**(_read_config(config) if config else {}), **(overrides or {})}
    if "recipe" not in given:
        return given
    return {**_recipe_for(given, str(given["recipe"])), **given}


def complete(given: Mapping[str, Any]) -> Settings:
    """Build Settings from what `given_settings` returned; the recipe is `tuned` if none is named.

    Raises:
        SettingsError: naming every unknown or invalid setting.
    """
    if "recipe" in given:
        return validate(given)
    return validate({**_recipe_for(given, DEFAULT_RECIPE), **given})


def _recipe_for(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the recipe without what the user's own network would not hear of."""
    recipe, model = read_recipe(name, given.get("epochs")), str(given.get("model", ""))
    is_own = ":" in model or model.endswith(".py")
    return {key: recipe[key] for key in recipe if not (is_own and key in FOR_BUILT_IN)}


def validate(values: Mapping[str, Any]) -> Settings:
    """Build Settings from plain values, with one line for whatever is wrong.

    Raises:
        SettingsError: naming every unknown or invalid setting.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"config file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise SettingsError(f"config file {path} is not valid TOML: {one_line(error)}") from error
    try:
        if "recipe" in values:
            read_recipe(str(values["recipe"]))
        Settings.model_validate(values)
    except SettingsError as error:
        raise SettingsError(f"config file {path}: {error}") from error
    except ValidationError as error:
        if any(each["loc"] for each in error.errors()):  # what does not fit together may be mended
            raise SettingsError(f"config file {path}: {_explain(error)}") from error
    return values


def _explain(error: ValidationError) -> str:
    """Return one line for all that is wrong, each once."""
    return "; ".join(dict.fromkeys(_explain_one(dict(each)) for each in error.errors()))


def _explain_one(error: dict[str, Any]) -> str:
    if not error["loc"]:
        return plain_reason(error, "")
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"unknown setting {name!r}{did_you_mean(name, Settings.model_fields)}"
    field = Settings.model_fields[name]
    reason = plain_reason(error, str(field.description))
    if error["type"] == "literal_error":
        reason += did_you_mean(str(error["input"]), get_args(field.annotation))
    if error["type"] == "string_pattern_mismatch":
        reason += did_you_mean(str(error["input"]), DEVICES)
    return f"setting {name} = {error['input']!r} is invalid: {reason}"
