"""Where people-facing text goes."""

from rich.console import Console


def people_console(*, json: bool = False) -> Console:
    """Return the console for people: standard output, or standard error beside JSON."""
    return Console(stderr=json, highlight=False)
