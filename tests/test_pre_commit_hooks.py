from pathlib import Path

import pytest

HOOKS = Path(__file__).parents[1] / ".pre-commit-hooks.yaml"
ENTRIES = [
    line.split(": ", 1)[1].split()
    for line in HOOKS.read_text().splitlines()
    if line.strip().startswith("entry: ")
]


def test_there_is_a_hook_for_each_gate():
    assert [entry[:2] for entry in ENTRIES] == [
        ["cifar-cnn", "summary"],
        ["cifar-cnn", "receptive-field"],
    ]


@pytest.mark.parametrize("entry", ENTRIES, ids=" ".join)
def test_a_hooks_command_line_passes_for_the_built_in_network(cli, entry):
    done = cli(*entry[1:])
    assert done.returncode == 0, done.stderr
