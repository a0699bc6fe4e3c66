import os
import re
import shlex
from pathlib import Path

import pytest
import typer

from cifar_cnn.analysis.budget import Budget
from cifar_cnn.cli.help import purpose_and_examples
from cifar_cnn.cli.main import app
from cifar_cnn.settings import FLAGS

PROGRAM = typer.main.get_command(app)


def _commands(group, path=()):
    yield " ".join(path), group
    for name, command in getattr(group, "commands", {}).items():
        yield from _commands(command, (*path, name))


COMMANDS = dict(_commands(PROGRAM))
EXAMPLES = {name: purpose_and_examples(command)[1] for name, command in COMMANDS.items()}
HELPS = [[*name.split(), "--help"] for name in COMMANDS] + [["train", "--help-all"]]


def _words(text):
    """Return the words in their order; a choice that goes on in the next line is one word."""
    words = re.sub(r" \\\n", "\n", text)
    return re.sub(r"(?<=\w\|)\s+(?=\w)", "", words).split()


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_fits_the_screen_and_no_word_is_cut(quick_cli, words):
    wide = quick_cli(*words, columns=100).stdout
    assert "Usage: cifar-cnn" in wide
    for columns in (80, 40):
        text = quick_cli(*words, columns=columns).stdout
        assert max(map(len, text.splitlines())) <= columns
        assert _words(text) == _words(wide)


def test_help_reads_as_it_was_stored(quick_cli):
    text = "".join(f"$ cifar-cnn {' '.join(each)}\n{quick_cli(*each).stdout}" for each in HELPS)
    stored = Path(__file__).parent / "stored" / "help.txt"
    if os.environ.get("STORE"):
        stored.write_text(text)
    assert text == stored.read_text()


def test_the_help_of_the_limits_says_the_briefs():
    options = [*COMMANDS["summarize"].params, *COMMANDS["receptive-field"].params]
    limits = [each for each in options if each.name in {"max_params", "min_rf"}]
    assert len(limits) == 3
    for option in limits:
        assert f"(default: {getattr(Budget(), option.name)})" in option.help


@pytest.mark.parametrize("name", COMMANDS)
def test_numbers_are_called_n_or_float_and_switches_have_no_value(quick_cli, name):
    text = quick_cli(*name.split(), "--help-all" if name == "train" else "--help").stdout
    assert not re.search(r"<|>|\[x|typing|bool|range\b", text)
    for option in COMMANDS[name].params:
        if isinstance(option, typer.core.TyperArgument):
            continue
        flags = rf"^  (?:-\w, )?{option.opts[0]}(?: / --no-\S+)?"
        line = re.search(rf"{flags}(?: (\S+))?(?:  .*)?$", text, re.MULTILINE)
        assert (line[1] is None) == option.is_flag, line[0]
        kind = option.type_descriptor.annotation
        if kind in {int, float} and option.metavar is None:
            assert line[1] == ("N" if kind is int else "FLOAT")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_ends_with_two_or_three_examples_of_it(quick_cli, name):
    for columns in (40, 80):
        text = quick_cli(*name.split(), "--help", columns=columns).stdout
        lines = text.partition("\nExamples:\n")[2].replace(" \\\n", " ").splitlines()
        assert [" ".join(line.split()) for line in lines] == EXAMPLES[name]
    assert 2 <= len(EXAMPLES[name]) <= 3
    aliases = {"summarize": "summary", "evaluate": "eval"}
    for line in EXAMPLES[name]:
        assert len(line) <= 78
        assert f"{line} ".startswith(f"cifar-cnn {aliases.get(name, name)}".rstrip() + " ")


@pytest.mark.parametrize(
    "line", dict.fromkeys(line for lines in EXAMPLES.values() for line in lines)
)
def test_an_example_of_the_help_runs_as_it_stands(quick_cli, folder_of_examples, line):
    folder_of_examples()
    words = shlex.split(line)[1:]
    if words[0] == "train":  # whether it would be refused, without the training
        words.append("--print-config")
    done = quick_cli(*words)
    assert done.stderr == ""
    assert done.returncode in {0, 1}  # 1: a submission is not inside the budget


def test_the_help_of_train_shows_a_dozen_flags_and_help_all_every_one(quick_cli):
    flags = re.compile(r"^  (?:-\w, )?--([a-z-]+)", re.MULTILINE)
    names = flags.findall(quick_cli("train", "--help").stdout)
    ranked = sorted((flag.rank, name) for name, flag in FLAGS.items() if flag.rank)
    everyday = [name.replace("_", "-") for _, name in ranked]
    assert names == [*everyday, "name", "resume", "json", "help-all", "help"]
    assert len(names) == 14
    everything = flags.findall(quick_cli("train", "--help-all").stdout)
    train = COMMANDS["train"].params
    assert sorted(everything) == sorted([*(each.opts[0][2:] for each in train), "help"])
