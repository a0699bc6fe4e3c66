"""Where people-facing text goes."""

from rich.console import Console

NARROW = 60
"""Columns below which a table shows only what matters most."""


def people_console(*, json: bool = False) -> Console:
    """Return the console for people: standard output, or standard error beside JSON."""
    return Console(stderr=json, highlight=False)
