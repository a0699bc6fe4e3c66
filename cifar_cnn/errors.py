"""The few errors a user can cause, each with its exit code.

Every message is one line that says what is wrong and what to do about it.
"""

import difflib
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

LONGEST = 300
"""Characters of a foreign message that are shown."""
LONGEST_NAME = 60
"""Characters of a name that are compared with others, or shown of a file (its last ones)."""


class UserError(Exception):
    """The work failed, or what it was given to work on is missing or unusable."""

    exit_status = 1


class RequestError(UserError):
    """The request itself is wrong: no data or network could make it work."""

    exit_status = 2


class SettingsError(RequestError):
    """An unknown or invalid setting, recipe or config file."""


class ModelError(RequestError):
    """A network that cannot be found, built or analyzed."""


class DataError(UserError):
    """Images that are missing, unreadable or not laid out as expected."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or does not fit the request."""


class RunError(UserError):
    """A run directory that cannot be used as asked, or a training that failed."""


class ExportError(UserError):
    """A network that cannot be exported, or whose export gives other answers."""


class NetworkWarning(UserWarning):
    """Changed code, stored arguments, or answers of a network that are not numbers."""


_FORMAT = warnings.formatwarning


def format_warning(message: Any, category: Any, *place: Any, **line: Any) -> str:
    """Return a warning as the program shows it: its own ones on a line, without the place."""
    if issubclass(category, NetworkWarning):
        return f"cifar-cnn: warning: {printable(str(message))}\n"
    return _FORMAT(message, category, *place, **line)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the `nearest` of the choices, or an empty string."""
    choice = nearest(name, choices)
    return f" (did you mean {choice!r}?)" if choice else ""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice that a name is a slip or a beginning of; None if there is none."""
    likeness = {choice: _likeness(name, choice) for choice in choices if choice}
    return max((c for c in likeness if likeness[c]), key=likeness.__getitem__, default=None)


def _likeness(*words: str) -> float:
    """Return 0–1; 0 for two words that share letters by chance, as `test` and `best` do."""
    short = (word[:LONGEST_NAME].lower() for word in words)
    name, choice = both = [word.replace("-", "_").strip("_") for word in short]
    ratio = difflib.SequenceMatcher(None, name, choice).ratio()
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*both, strict=False)))
    is_alike = (
        ratio >= 0.8
        or (ratio >= 0.75 and shared)
        or (ratio >= 0.6 and shared >= min(3, len(choice)))
        or (shared == len(name) >= 3)
        or sorted(name) == sorted(choice)
    )
    return ratio if is_alike else 0.0


def one_line(error: BaseException) -> str:
    """Return the message of any exception on a single line, shortened; its type's name if none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def system_line(error: OSError) -> str:
    """Return the system's message on one line, with the end of the file's name, if it has one."""
    if error.strerror is None:  # a library's own words
        return one_line(error)
    name = str(error.filename or "")
    end = name if len(name) <= LONGEST_NAME else f"…{name[-LONGEST_NAME:]}"
    return f"{end} cannot be used: {error.strerror}" if name else error.strerror


_OTHER_NAMES = {"name": "directory", "exist_ok": "replace", "model": "spec"}
"""Arguments of functions of the library that do not bear the name of their flag."""

_PLAIN = {
    "Value error, ": "",
    "Input should be": "it has to be",
    "Input is not a valid path.*": "it has to be a path",
    "Unable to parse input string.*": "it has to be a smaller number",
    ", (unable to|got a number).*": "",
    "greater than or equal to": "at least",
    "greater than": "above",
    "less than or equal to": "at most",
    "less than": "below",
    "a valid boolean": "yes or no (in TOML, true or false)",
    "a valid string": "text",
    "integer": "whole number",
    "a valid ": "a ",
}
"""Pydantic's words, and plain ones in their place."""


def plain_words(message: str) -> str:
    """Replace pydantic's words in a message, its own or that of the command line's parser."""
    for words, plain in _PLAIN.items():
        message = re.sub(words, plain, message)
    return message


def plain_reason(error: Mapping[str, Any], otherwise: str) -> str:
    """Return what one of pydantic's errors means in plain words, or `otherwise`."""
    if error["type"] == "value_error":  # our own message
        return str(error["msg"]).removeprefix("Value error, ")
    reason = plain_words(str(error["msg"]))
    is_plain = reason.startswith("it has to be") and error["type"] != "tuple_type"
    return reason if is_plain else otherwise


def name_arguments(message: str, parameters: Collection[str]) -> str:
    """Replace flags in a message by a function's arguments, except in a whole command."""

    def name_one(match: re.Match[str]) -> str:
        command, negated, flag = match.groups()
        if command:
            return command
        name = flag.replace("-", "_")
        other = _OTHER_NAMES.get(name, name)
        name = other if other in parameters and name not in parameters else name
        return f"{name}=False" if negated else name

    return re.sub(r"(cifar-cnn \S+ --.*)|(?<![\w-])--(no-)?([a-z][a-z-]*[a-z])", name_one, message)


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Return the names; of many the first, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(number: int, noun: str) -> str:
    """Return `1 epoch`, `2 epochs`, `3 classes`, `10,000 images`."""
    plural = f"{noun}es" if noun.endswith(("s", "tch")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def printable(text: str) -> str:
    """Return the text, which may quote an untrusted file, on one line without control codes."""
    text = re.sub(r"\b([a-z][a-z0-9+]+):/(?=[^/])", r"\1://", text)  # a URL, read as a path
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
