"""Make a function a command: its flags, those of the settings, and the help of both."""

import inspect
import re
from collections.abc import Callable, Collection
from copy import copy
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from cifar_cnn.analysis.devices import DEVICES
from cifar_cnn.cli.process import print_json
from cifar_cnn.recipes import DEFAULT_RECIPE, read_recipe
from cifar_cnn.report.console import people_console
from cifar_cnn.settings import FLAGS, Settings
from cifar_cnn.storage.naming import RUNS, SETTINGS
from cifar_cnn.training import is_main_process
from cifar_cnn.training.run_files import check_result

OWN = "the checkpoint's own"
"""Default of a setting that a checkpoint has."""


def complete_run(incomplete: str) -> list[str]:
    """Return the runs in the default folder whose name begins so, or whose path does."""
    runs = sorted(path.parent for path in RUNS.glob(f"*/{SETTINGS}"))
    names = [run.name for run in runs if run.name.startswith(incomplete)]
    return names or [run.as_posix() for run in runs if run.as_posix().startswith(incomplete)]


def complete_from(choices: Collection[str]) -> Callable[[str], list[str]]:
    """Return a function that completes one of the choices."""
    return lambda incomplete: [each for each in choices if each.startswith(incomplete)]


def _output_file(suffix: str) -> Any:
    """Return an option for a file to write, which is checked before the work starts."""

    def check(option: typer.CallbackParam, path: Path | None) -> Path | None:
        if path is not None:
            check_result(option.opts[0], path, suffix)
        return path

    return typer.Option(metavar=f"FILE{suffix}", callback=check)


CsvFile = Annotated[Path | None, _output_file(".csv")]
PngFile = Annotated[Path | None, _output_file(".png")]
XmlFile = Annotated[Path | None, _output_file(".xml")]
Names = Annotated[list[str] | None, typer.Option(metavar="NAME")]
RunArgument = Annotated[Path, typer.Argument(autocompletion=complete_run)]
OutputDir = Annotated[Path, typer.Option(help="Folder of the runs.")]
JsonFlag = Annotated[
    bool,
    typer.Option(
        "--json",
        help="One JSON document on standard output; standard error has warnings and errors only.",
    ),
]
BareNormalization = Annotated[
    str | None,
    typer.Option(
        "--normalization",
        metavar="cifar10|dataset|MEAN/STD",
        help="Normalization of weights from elsewhere: cifar10's, dataset (measured on training "
        "images), or as 0.5/0.5 or R,G,B/R,G,B (default: cifar10).",
    ),
]


def _limit(kind: Any, metavar: str, text: str) -> Any:
    return Annotated[
        kind | None, typer.Option(help=text, metavar=metavar, rich_help_panel="Budget")
    ]


LIMITS = {
    "max_params": _limit(int, "N", "Parameters must be strictly fewer (default: 200000)."),
    "min_rf": _limit(int, "N", "Receptive field at the output above N pixels (default: 44)."),
    "min_rf_features": _limit(
        int, "N", "Receptive field at the last map, before global pooling, above N pixels."
    ),
    "max_mult_adds": _limit(int, "N", "Multiply-adds for one image at most."),
    "max_flash": _limit(str, "SIZE", "Size of the int8 weights at most: 128kB is 131072 bytes."),
    "max_ram": _limit(str, "SIZE", "Size of one image's live int8 activations at most: 64kB."),
    "device_preset": _limit(str, "BOARD", f"Flash and RAM of a board: {', '.join(DEVICES)}."),
    "require": _limit(
        list[str],
        "NAME",
        "Structure that must be there: depthwise-separable, dilated or gap; "
        "repeatable, replaces the list (default: all three).",
    ),
}
"""Flags of the budget's limits, by field name of `Budget`."""


def command(**settings: str) -> Callable[[Callable[..., tuple[Any, int] | None]], Any]:
    """Return a decorator that makes a function a command.

    The section `Options` of its docstring is the help of its parameters; a switch needs no other
    declaration. Each of `settings` gets a flag, whose text is its default in the help; if it is
    empty, the field says it. The function gets those on the command line as `overrides`.

    A function with a parameter `limits` gets the flags in LIMITS, and their values as a dict.

    A function with a parameter `console` returns its document and exit code, and gets a flag
    `--json`: the document is printed then, and what the function prints on the console is not.
    """

    def decorate(function: Callable[..., tuple[Any, int] | None]) -> Callable[..., None]:
        docstring = inspect.getdoc(function) or ""
        texts = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", docstring, re.MULTILINE))
        signature = inspect.signature(function)

        @wraps(function)
        def wrapper(**arguments: Any) -> None:
            if settings:
                arguments["overrides"] = _take_flags(arguments, settings)
            if "limits" in signature.parameters:
                arguments["limits"] = _take_flags(arguments, LIMITS)
            json = arguments.pop("json", False)
            if "console" in signature.parameters:
                arguments["console"] = people_console(json=json or not is_main_process())
            document, exit_status = function(**arguments) or (None, 0)
            if json and document is not None and is_main_process():
                print_json(document)
            if exit_status:
                raise typer.Exit(exit_status)

        parameters = [
            _with_help(parameter, texts.get(parameter.name))
            for parameter in signature.parameters.values()
            if parameter.name not in {"console", "overrides", "limits"}
        ]
        if "limits" in signature.parameters:
            parameters += [_keyword(name, None, option) for name, option in LIMITS.items()]
        if "console" in signature.parameters:
            parameters.append(_keyword("json", False, JsonFlag))
        parameters += [_of_setting(name, default) for name, default in settings.items()]
        wrapper.__doc__ = re.sub(r"\n\nOptions:(?:\n {4}.*)+", "", docstring)
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
        return wrapper

    return decorate


def _take_flags(arguments: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Remove flags from the arguments, and return those on the command line."""
    flags = {name: arguments.pop(name) for name in names}
    return {name: each for name, each in flags.items() if each not in (None, [])}


def _with_help(parameter: inspect.Parameter, text: str | None) -> inspect.Parameter:
    if text is None:
        return parameter
    kind, option = parameter.annotation, typer.Option()
    if get_origin(kind) is Annotated:
        kind, option = get_args(kind)
    elif kind is bool:
        option = typer.Option(f"--{parameter.name.replace('_', '-')}")
    option = copy(option)
    option.help = " ".join(text.split())
    return parameter.replace(annotation=Annotated[kind, option])


def _of_setting(name: str, default: str) -> inspect.Parameter:
    field, flag = Settings.model_fields[name], FLAGS[name]
    description = str(field.description)
    recipe_value = read_recipe(DEFAULT_RECIPE).get(name, field.default)
    default = default or flag.shown or _show(recipe_value)
    word = name.replace("_", "-")
    literals = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    choices = literals or flag.choices
    option = typer.Option(
        f"--{word}/--no-{word}" if field.annotation is bool else f"--{word}",
        help=f"{description[0].upper()}{description[1:]} (default: {default}).",
        rich_help_panel=flag.panel,
        metavar="|".join(literals) or flag.metavar,
        autocompletion=complete_from(choices) if choices else None,
    )
    return _keyword(name, None, Annotated[_flag_type(field) | None, option])


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _flag_type(field: FieldInfo) -> Any:
    annotation = field.annotation
    if get_args(annotation) == (str, ...):
        return list[str]
    if get_origin(annotation) in {tuple, Literal}:  # Settings parses these
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
