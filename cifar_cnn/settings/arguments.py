"""Arguments for the user's own network, as they are written: NAME=VALUE."""

import ast
import warnings
from collections.abc import Sequence
from typing import Any, Final

_WORDS: Final = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
    **dict.fromkeys(("none", "null"), None),
}
"""What people write for Python's constants, in any case."""


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Return what the texts give, by name: words of _WORDS, Python literals, else the text itself.

    Raises:
        ValueError: one is not NAME=VALUE, or a name is given twice.
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
