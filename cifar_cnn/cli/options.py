"""Options made from the fields of Settings, so that flag, setting and help cannot drift apart.

And what the shell may complete: names of runs, networks and recipes. None of it needs torch.
"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.recipes import DEFAULT_RECIPE, RECIPES, read_recipe
from cifar_cnn.settings import Settings
from cifar_cnn.settings.fields import DEVICES, MODELS
from cifar_cnn.training.naming import RUNS
from cifar_cnn.training.run_files import SETTINGS

OWN = "the checkpoint's own"
"""Default of a setting that a checkpoint has."""

JsonFlag = Annotated[
    bool,
    typer.Option(
        "--json",
        help="One JSON document on standard output; standard error has warnings and errors only.",
    ),
]

MinRf = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Receptive field at the output must be above this, in pixels "
        f"(default: {Budget().min_rf}).",
    ),
]
AssumePointwise = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Vouch for an operation the tool does not know: each output position reads only the "
        "same input position (repeatable).",
    ),
]
BareNormalization = Annotated[
    str | None,
    typer.Option(
        "--normalization",
        metavar="cifar10|dataset|MEAN/STD",
        help="Normalization of a bare state dict: cifar10's, dataset (measured on the training "
        "images), or as 0.5/0.5 or R,G,B/R,G,B (default: cifar10).",
        show_default=False,
    ),
]
OutputDir = Annotated[Path, typer.Option(help="Folder of the runs.")]

PANELS = {
    "Network": ("recipe", "model", "model_arg", "input_size", "dropout"),
    "Data": (
        *("dataset", "data_dir", "limit_train", "limit_eval", "val_size", "test_size"),
        "normalization",
    ),
    "Optimization": (
        *("epochs", "batch_size", "ghost_batch_size", "optimizer", "lr", "momentum", "nesterov"),
        *("weight_decay", "label_smoothing", "class_weights", "scheduler", "step_size", "gamma"),
        *("warmup_epochs", "lr_floor"),
    ),
    "Augmentation": (
        *("flip", "shift", "affine", "rotation", "color_jitter", "cutout", "cutout_size", "mixup"),
    ),
    "Arithmetic": ("seed", "precision", "threads", "deterministic", "device"),
}
METAVARS = {"input_size": "N|HxW", "model_arg": "NAME=VALUE", "device": "|".join(DEVICES)}
"""What stands for a setting's value in the help, where its type alone says too little."""
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}


def complete_model(incomplete: str) -> list[str]:
    """Return the built-in networks that begin so."""
    return [name for name in MODELS if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """Return the recipes that begin so."""
    return [name for name in RECIPES if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Return the runs in the default folder whose name begins so, or whose path does."""
    runs = sorted(path.parent for path in RUNS.glob(f"*/{SETTINGS}"))
    names = [run.name for run in runs if run.name.startswith(incomplete)]
    return names or [run.as_posix() for run in runs if run.as_posix().startswith(incomplete)]


COMPLETIONS = {"model": complete_model, "recipe": complete_recipe}


def settings_options(*names: str, **defaults: str) -> Callable[[Callable[..., None]], Any]:
    """Add a flag for each named setting to a command that takes them as `overrides`.

    The command gets only what the user gave, as a dict; `defaults` says in the help what applies
    otherwise, where that is not the default recipe's value.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapper(**arguments: Any) -> None:
            given = {name: arguments.pop(name) for name in names}
            overrides = {name: value for name, value in given.items() if value not in (None, [])}
            command(**arguments, overrides=overrides)

        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.name != "overrides"]
        added = [_parameter(name, defaults.get(name)) for name in names]
        wrapper.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
        return wrapper

    return decorate


def _parameter(name: str, default: str | None) -> inspect.Parameter:
    field = Settings.model_fields[name]
    recipe_value = read_recipe(DEFAULT_RECIPE).get(name, field.default)
    flag = f"--{name.replace('_', '-')}"
    option = typer.Option(
        f"{flag}/--no-{name.replace('_', '-')}" if field.annotation is bool else flag,
        help=_help(field, default or _show(recipe_value)),
        show_default=False,
        rich_help_panel=PANEL_OF[name],
        metavar=_metavar(name, field),
        autocompletion=COMPLETIONS.get(name),
    )
    annotation = Annotated[_flag_type(field) | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _flag_type(field: FieldInfo) -> Any:
    annotation = field.annotation
    if get_args(annotation) == (str, ...):
        return list[str]
    if get_origin(annotation) in {tuple, Literal}:  # parsed by Settings, which knows what is meant
        return str
    members = [m for m in get_args(annotation) if m is not type(None)]
    is_optional = len(members) < len(get_args(annotation))
    kind = members[0] if is_optional else annotation
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _metavar(name: str, field: FieldInfo) -> str | None:
    if get_origin(field.annotation) is Literal:
        return "|".join(get_args(field.annotation))
    return METAVARS.get(name)


def _help(field: FieldInfo, default: str) -> str:
    description = f"{field.description}"
    return f"{description[0].upper()}{description[1:]} (default: {default})."


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "x".join(str(side) for side in value)
    return "all" if value is None else str(value)
