"""How values of settings are read: sizes, folders, and arguments of the user's own network."""

import ast
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

_WORDS: Final = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
    **dict.fromkeys(("none", "null"), None),
}
"""What people write for Python's constants, in any case."""


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Return the values of NAME=VALUE texts: words of _WORDS, Python literals, or the text itself.

    Raises a ValueError for a text that is not NAME=VALUE, or a name that is given twice.
    """
    arguments: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name.isidentifier():
            raise ValueError(f"{text!r} is not NAME=VALUE, as width=8 is")
        if name in arguments:
            raise ValueError(f"{name} is given twice: give it once")
        arguments[name] = _literal(value)
    return arguments


def _literal(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python has an opinion of "1is" and "\d"
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return text


def _parse_size(value: object) -> object:
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
    """Expand ~; refuse a name that is not UTF-8, as TOML could not keep it."""
    if os.fsencode(folder) != str(folder).encode(errors="ignore"):
        raise ValueError("its name is not UTF-8: rename the folder, or give a link to it")
    return Path(os.path.expanduser(folder))  # noqa: PTH111 - Path's own fails where there is no home


def _check_arguments(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("it has to be a list, as ['width=8'] is")  # noqa: TRY004 - pydantic's way
    parse_arguments([str(text) for text in value])
    return value


Folder = Annotated[Path, AfterValidator(_expand)]
Arguments = Annotated[tuple[str, ...], BeforeValidator(_check_arguments)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
InputSize = Annotated[
    tuple[Pixels, Pixels],
    BeforeValidator(_parse_size, json_schema_input_type=int | str | list[int]),
]
