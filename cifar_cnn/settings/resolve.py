"""Merge recipe, config file and command line into settings, and explain invalid ones."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from cifar_cnn.errors import SettingsError, did_you_mean, one_line, plain_reason
from cifar_cnn.recipes import DEFAULT_RECIPE, read_recipe
from cifar_cnn.settings.fields import DEVICES, MODELS, SOURCES, Settings
from cifar_cnn.settings.values import parse_arguments

REMOVED = ("ema", "teacher", "distill_alpha", "distill_temperature")
"""Settings until version 0.2.0; the last two had an effect only together with `teacher`."""


def resolve_settings(
    overrides: Mapping[str, Any] | None = None, config: Path | None = None
) -> Settings:
    """Merge neutral defaults, a recipe, a config file and overrides, each beating the one before.

    The recipe is the one named in `overrides`, else in the config file, else `tuned`.

    Raises:
        SettingsError: a name is unknown, a value invalid, or the config file unreadable.
    """
    return complete_settings(merge_settings(overrides, config))


def merge_settings(
    overrides: Mapping[str, Any] | None = None, config: Path | None = None
) -> dict[str, Any]:
    """Return what the user sets, not validated: a recipe, the config file and overrides."""
    values = {**(_read_config(config) if config else {}), **(overrides or {})}
    recipe = _recipe_for(values, str(values["recipe"])) if "recipe" in values else {}
    return {**recipe, **values}


def complete_settings(values: Mapping[str, Any]) -> Settings:
    """Build Settings from what `merge_settings` returned.

    The default recipe is `tuned`, the default normalization that of the data source.
    """
    if "recipe" not in values:
        values = {**_recipe_for(values, DEFAULT_RECIPE), **values}
    if source := SOURCES.get(str(values.get("dataset"))):
        values = {"normalization": source.normalization, **values}
    return validate(values)


def _recipe_for(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the recipe, for the user's own network without what would not reach it."""
    model = str(values.get("model", ""))
    recipe = read_recipe(name, values.get("epochs"), _width_of(values) if model in MODELS else 1.0)
    if ":" in model or model.endswith(".py"):
        for key in ("dropout", "ghost_batch_size"):
            recipe.pop(key, None)
    return recipe


def _width_of(values: Mapping[str, Any]) -> float:
    """Return the width of a built-in network; 1 unless it is given and a number."""
    try:
        return float(parse_arguments(values.get("model_arg") or ()).get("width", 1.0))
    except (TypeError, ValueError, OverflowError):  # building the network refuses it
        return 1.0


def validate(values: Mapping[str, Any]) -> Settings:
    """Build Settings from plain values, or raise one SettingsError for all that is wrong."""
    check_removed(values)
    try:
        return Settings.model_validate(without_removed(values))
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error


def check_removed(values: Mapping[str, Any]) -> None:
    """Refuse a removed setting that has an effect."""
    for name in REMOVED[:2]:
        if values.get(name):
            raise SettingsError(
                f"setting {name} = {values[name]!r} was removed after version 0.2.0: "
                "use that version, or train without it"
            )


def without_removed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out settings that this version no longer has."""
    return {name: value for name, value in values.items() if name not in REMOVED}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        if "recipe" in values:
            read_recipe(str(values["recipe"]))
        check_removed(values)
        Settings.model_validate(without_removed(values))
    except OSError as error:
        raise SettingsError(f"config file {path} cannot be read: {error.strerror}") from error
    except SettingsError as error:
        raise SettingsError(f"config file {path}: {error}") from error
    except ValidationError as error:
        if error.errors()[0]["loc"]:  # else flags may mend what does not go together
            raise SettingsError(f"config file {path}: {_explain(error)}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise SettingsError(f"config file {path} is not valid TOML: {one_line(error)}") from error
    return values


def _explain(error: ValidationError) -> str:
    return "; ".join(dict.fromkeys(_explain_one(dict(each)) for each in error.errors()))


def _explain_one(error: dict[str, Any]) -> str:
    if not error["loc"]:
        return plain_reason(error, "")
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"unknown setting {name!r}{did_you_mean(name, Settings.model_fields)}"
    field = Settings.model_fields[name]
    reason = plain_reason(error, f"it has to be {str(field.description).rpartition(': ')[2]}")
    if error["type"] == "literal_error":
        reason += did_you_mean(str(error["input"]), get_args(field.annotation))
    if error["type"] == "string_pattern_mismatch":
        reason += did_you_mean(str(error["input"]), DEVICES)
    return f"setting {name} = {error['input']!r} is invalid: {reason}"
