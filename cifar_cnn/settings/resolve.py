"""How recipe, config file and command line make settings, and what is said where they do not."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from cifar_cnn.errors import SettingsError, did_you_mean, one_line, plain_reason
from cifar_cnn.recipes import DEFAULT_RECIPE, read_recipe
from cifar_cnn.settings.fields import DEVICES, SOURCES, Settings, used_removed

FOR_BUILT_IN = ("dropout", "ghost_batch_size")
"""Settings of recipes that reach built-in networks."""


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
    """Return what is given, not validated: a named recipe's settings, the file's, overrides."""
    given = {**(_read_config(config) if config else {}), **(overrides or {})}
    if "recipe" not in given:
        return given
    return {**_recipe_for(given, str(given["recipe"])), **given}


def complete(given: Mapping[str, Any]) -> Settings:
    """Build Settings from what `given_settings` returned.

    The default recipe is `tuned`, the default normalization that of the data source.
    """
    if "recipe" not in given:
        given = {**_recipe_for(given, DEFAULT_RECIPE), **given}
    if source := SOURCES.get(str(given.get("dataset"))):
        given = {"normalization": source.normalization, **given}
    return validate(given)


def _recipe_for(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the recipe, for the user's own network without what it would not be given."""
    recipe, model = read_recipe(name, given.get("epochs")), str(given.get("model", ""))
    is_own = ":" in model or model.endswith(".py")
    return {key: recipe[key] for key in recipe if not (is_own and key in FOR_BUILT_IN)}


def validate(values: Mapping[str, Any]) -> Settings:
    """Build Settings from plain values, or raise one SettingsError for all that is wrong."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        if "recipe" in values:
            read_recipe(str(values["recipe"]))
        Settings.model_validate(values)
    except OSError as error:
        raise SettingsError(f"config file {path} cannot be read: {error.strerror}") from error
    except SettingsError as error:
        raise SettingsError(f"config file {path}: {error}") from error
    except ValidationError as error:
        if used_removed(values) or any(each["loc"] for each in error.errors()):
            # others may be mended by flags
            raise SettingsError(f"config file {path}: {_explain(error)}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise SettingsError(f"config file {path} is not valid TOML: {one_line(error)}") from error
    return values


def _explain(error: ValidationError) -> str:
    """Return all that is wrong on one line."""
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
