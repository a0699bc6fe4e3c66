"""Everything that decides what a run computes, as one frozen, validated object."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cifar_cnn.recipes import DEFAULT_EPOCHS, DEFAULT_RECIPE, RECIPES
from cifar_cnn.settings.values import Arguments, Folder, Fraction, InputSize, Probability

MODELS = ("baseline", "compact")
"""The names of the tool's own networks; `models/registry.py` has their classes, in this order."""


class SourceInfo(NamedTuple):
    """What settings say of a source of images, which `data/<name>.py` reads."""

    origin: str
    normalization: str = "cifar10"  # unless the settings say otherwise
    chosen_by: tuple[str, ...] = ()  # the settings that decide which images these are


SOURCES = {
    "cifar10": SourceInfo("downloaded"),
    "folder": SourceInfo("yours", "dataset", ("data_dir", "test_size")),
    "synthetic": SourceInfo("drawn"),
}
MEASURED = [name for name, source in SOURCES.items() if source.normalization == "dataset"]
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Flag:
    """What the command line says of a setting beside its name, type and description."""

    panel: str = ""  # heading in the help; that of the field before if empty
    rank: int = 0  # place in `train --help`; 0: shown by `--help-all` alone
    shown: str = ""  # default in the help, in place of the recipe's value
    metavar: str | None = None
    choices: tuple[str, ...] = ()  # what a shell completes


def setting(default: Any, description: str, flag: Flag | None = None, **limits: Any) -> Any:
    """Return a field of Settings; `limits` are pydantic's."""
    field = Field(default, description=description, **limits)
    field.metadata.append(flag or Flag())
    return field


class Settings(BaseModel):
    """Everything that decides what a run computes.

    Each field is also a flag of `cifar-cnn train` (`batch_size`: `--batch-size`) and a key of the
    config file. Its default is neutral: recipes say how they differ, and `resolve_settings` starts
    from one. Invalid values raise pydantic's ValidationError, or SettingsError there.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    recipe: str = setting(
        DEFAULT_RECIPE, "settings to start from", Flag("Network", rank=2, choices=RECIPES)
    )
    model: str = setting(
        "baseline",
        "network: built-in name, module:attr, path.py or path.py:attr",
        Flag(rank=1, choices=MODELS),
    )
    model_arg: Arguments = setting(
        (),
        "argument of your network's class or factory, NAME=VALUE; VALUE is a Python literal, yes, "
        "no or none (all else, and what is in quotes, is text); repeatable",
        Flag(shown="none", metavar="NAME=VALUE"),
    )
    input_size: InputSize = setting(
        (32, 32), "image size: N or HxW (height×width)", Flag(metavar="N|HxW")
    )

    dataset: Literal[tuple(SOURCES)] = setting(  # type: ignore[valid-type]
        "cifar10",
        "source of the images: " + ", ".join(f"{n} ({each.origin})" for n, each in SOURCES.items()),
        Flag("Data", rank=3),
    )
    data_dir: Folder = setting(Path("data"), "folder of the images", Flag(rank=4))
    limit_train: int | None = setting(
        None, "use N training images, as many of each class (a balanced subset)", ge=1
    )
    limit_eval: int | None = setting(
        None, "evaluate on N images, as many of each class (a balanced subset)", ge=1
    )
    val_size: int = setting(
        0,
        "cut N validation images from the training images, the same share of each class; they "
        "choose best.pt",
        Flag(rank=5),
        ge=0,
    )
    test_size: Fraction = setting(
        0.0,
        "fraction of each class that is the test images, the same always, where --data-dir has "
        "class folders alone",
    )
    normalization: Literal["cifar10", "dataset"] = setting(
        "cifar10",
        "channel mean and standard deviation: CIFAR-10's constants (cifar10), or computed from the "
        "training images (dataset); recipe reference sets cifar10",
        Flag(shown=f"dataset for {', '.join(MEASURED)}, else cifar10"),
    )

    epochs: int = setting(
        DEFAULT_EPOCHS,
        "passes over the training images",
        Flag("Optimization", rank=6),
        ge=1,
        le=1_000_000,
    )
    batch_size: int = setting(128, "images in a step", Flag(rank=7), ge=1, le=1_000_000)
    ghost_batch_size: int = setting(
        0,
        "split each batch into ghost batches of at most N images, each normalized on its own and "
        "computed by one thread; 0 disables it (built-in networks on a CPU)",
        ge=0,
    )
    optimizer: Literal["sgd", "adamw", "muon"] = setting("sgd", "optimizer")
    lr: float = setting(0.01, "learning rate (onecycle, cosine: its peak)", Flag(rank=8), gt=0)
    momentum: Fraction = setting(0.9, "momentum of SGD")
    nesterov: bool = setting(False, "Nesterov's form of SGD's momentum")
    weight_decay: float = setting(
        0.0, "weight decay, on weights only (not biases, not normalizations)", ge=0
    )
    label_smoothing: Fraction = setting(0.0, "label smoothing")
    class_weights: Literal["none", "balanced"] = setting(
        "none",
        "weight of a class in the loss of training: none, or balanced, by which each class counts "
        "as much, however many images it has",
    )
    dropout: Fraction | None = setting(
        None,
        "dropout probability of a built-in network, or of yours where it has a parameter `dropout`",
        Flag("Network", shown="0, or your network's own"),
    )
    scheduler: Literal["constant", "step", "onecycle", "cosine"] = setting(
        "constant", "how the learning rate moves", Flag("Optimization")
    )
    step_size: int = setting(6, "step scheduler: epochs between two drops", ge=1)
    gamma: float = setting(0.1, "step scheduler: factor of each drop", gt=0, le=1)
    warmup_epochs: float = setting(
        0.0, "cosine scheduler: epochs in which the learning rate rises first", ge=0
    )
    lr_floor: Fraction = setting(
        0.0, "cosine scheduler: fraction of the learning rate that is left at the end"
    )

    flip: Probability = setting(0.0, "probability of a horizontal flip", Flag("Augmentation"))
    shift: int = setting(0, "largest random shift in pixels, reflected border", ge=0)
    affine: Probability = setting(
        0.0, "probability of a random shift ±10 %, scale ±10 % and rotation ±15°"
    )
    rotation: float = setting(
        0.0, "largest random rotation in degrees, reflected border", ge=0, le=180
    )
    color_jitter: Fraction = setting(
        0.0, "largest random change of brightness, contrast and saturation, as a fraction"
    )
    cutout: Probability = setting(0.0, "probability of a cut-out square")
    cutout_size: int = setting(16, "side of the cut-out square in pixels", ge=1)
    mixup: float = setting(
        0.0,
        "largest fraction of another image mixed in, reached halfway through the run",
        ge=0,
        le=0.5,
    )

    seed: int = setting(0, "seed of every random draw", Flag("Arithmetic"), ge=0, lt=2**63)
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "arithmetic of the network; auto: bf16 where the processor has it"
    )
    threads: int = setting(0, "threads of one process on a CPU; 0: all cores", ge=0, le=1024)
    deterministic: bool = setting(False, "bit-identical runs on CUDA too, where that is slower")
    device: str = setting(
        "auto",
        "where the network runs: auto, cpu, cuda, cuda:1 … or mps",
        Flag(rank=9, metavar="|".join(DEVICES), choices=DEVICES),
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
    )

    @model_validator(mode="after")
    def _check_nesterov(self) -> Self:
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0: set --no-nesterov")
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return them as in the documents that commands print, where sizes are [3, H, W]."""
        return self.model_dump(mode="json") | {"input_size": [3, *self.input_size]}

    def to_toml(self) -> str:
        """Return the settings as TOML that `--config` accepts; unset limits are left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def _flags() -> dict[str, Flag]:
    """Return the flag of each setting, with its panel."""
    flags, panel = {}, ""
    for name, field in Settings.model_fields.items():
        (flag,) = (each for each in field.metadata if isinstance(each, Flag))
        panel = flag.panel or panel
        flags[name] = replace(flag, panel=panel)
    return flags


FLAGS = _flags()
