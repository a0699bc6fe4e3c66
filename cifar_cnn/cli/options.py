"""Flags made from the fields of Settings, and those that several commands have."""

import inspect
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.recipes import DEFAULT_RECIPE, read_recipe
from cifar_cnn.settings import FLAGS, Settings
from cifar_cnn.settings.fields import MODELS
from cifar_cnn.storage.naming import RUNS, SETTINGS

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


def _complete(choices: Collection[str]) -> Callable[[str], list[str]] | None:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete if choices else None


complete_model = _complete(MODELS)


def complete_run(incomplete: str) -> list[str]:
    """Return the runs in the default folder whose name begins so, or whose path does."""
    runs = sorted(path.parent for path in RUNS.glob(f"*/{SETTINGS}"))
    names = [run.name for run in runs if run.name.startswith(incomplete)]
    return names or [run.as_posix() for run in runs if run.as_posix().startswith(incomplete)]


def settings_options(**defaults: str) -> Callable[[Callable[..., None]], Any]:
    """Add a flag for each setting to a command, which gets the given ones as `overrides`.

    The text of a setting is its default in the help; if it is empty, the field says it.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def wrapper(**arguments: Any) -> None:
            given = {name: arguments.pop(name) for name in defaults}
            overrides = {name: value for name, value in given.items() if value not in (None, [])}
            command(**arguments, overrides=overrides)

        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.name != "overrides"]
        added = [_parameter(name, default) for name, default in defaults.items()]
        wrapper.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
        return wrapper

    return decorate


def _parameter(name: str, default: str) -> inspect.Parameter:
    field, flag = Settings.model_fields[name], FLAGS[name]
    description = str(field.description)
    recipe_value = read_recipe(DEFAULT_RECIPE).get(name, field.default)
    shown = default or flag.shown or _show(recipe_value)
    word = name.replace("_", "-")
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    option = typer.Option(
        f"--{word}/--no-{word}" if field.annotation is bool else f"--{word}",
        help=f"{description[0].upper()}{description[1:]} (default: {shown}).",
        show_default=False,
        rich_help_panel=flag.panel,
        metavar="|".join(choices) or flag.metavar,
        autocompletion=_complete(choices or flag.choices),
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


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "x".join(str(side) for side in value)
    return "all" if value is None else str(value)
