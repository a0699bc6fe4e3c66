"""The README's section on flags, from the same texts as `--help`.

    python tests/readme/flags.py

writes it anew between its two markers; tests/test_readme.py holds the README against it.
"""

from pathlib import Path

import typer
from rich.text import Text

from cifar_cnn.cli.main import ALIASES, app

README = Path(__file__).parents[2] / "README.md"
START, END = "<!-- flags: start -->\n", "<!-- flags: end -->\n"
VALUES = {int: "N", float: "X"}


def render() -> str:
    """Return the section: for each command its help and a table of its flags."""
    sections = []
    for name, command in commands(typer.main.get_command(app)):
        short = [alias for alias, full in ALIASES.items() if full == name]
        title = " or ".join(f"`cifar-cnn {each}`" for each in (name, *short))
        about = Text.from_markup((command.help or "").split("\n\n")[0]).plain
        rows = [row(parameter) for parameter in command.params if parameter.name != "help"]
        table = ["| flag | what it does |", "|---|---|", *rows] if rows else []
        sections.append("\n".join([f"**{title}**: {about}", "", *table, ""]))
    return "\n".join(sections)


def commands(group):
    """Yield every command under its full name."""
    for name, command in group.commands.items():
        yield name, command
        for inner, each in getattr(command, "commands", {}).items():
            yield f"{name} {inner}", each


def row(parameter) -> str:
    """Return the line of one flag or argument."""
    is_argument = parameter.param_type_name == "argument"
    if is_argument:
        flag = parameter.metavar or parameter.name.upper()
    else:
        flag = ", ".join([*parameter.opts, *parameter.secondary_opts])
        if not parameter.is_flag:
            flag += f" {parameter.metavar or VALUES.get(parameter.bare_type(), 'NAME')}"
    said = parameter.help or ""
    if isinstance(parameter.default, str | int | Path) and not (is_argument or parameter.is_flag):
        said = f"{said.rstrip('.')} (default: {parameter.default})."
    return "| `{}` | {} |".format(flag.replace("|", "\\|"), said.replace("|", "\\|"))


def replaced(text: str) -> str:
    """Return the README's text with the section between its markers made anew."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{render()}{END}{after}"


if __name__ == "__main__":
    README.write_text(replaced(README.read_text(encoding="utf-8")), encoding="utf-8")
