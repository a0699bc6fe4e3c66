"""The program as a whole: its start, its names, and what it prints where."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

HELP_WITHOUT_TORCH = """
import sys
from typer.testing import CliRunner
from cifar_cnn.cli.main import app
words = ("train", "evaluate", "eval", "summarize", "summary", "receptive-field", "predict",
         "export", "report", "runs", "runs show", "runs compare", "models", "settings")
for line in ("", *words):
    done = CliRunner().invoke(app, [*line.split(), "--help"], prog_name="cifar-cnn")
    assert done.exit_code == 0 and "Usage: cifar-cnn" in done.stdout, line
    assert not {"torch", "matplotlib", "PIL", "numpy"} & sys.modules.keys(), line
"""


def test_help_answers_without_importing_torch():
    command = [sys.executable, "-c", HELP_WITHOUT_TORCH]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_aliases_have_no_line_of_their_own_and_are_named_by_their_command(quick_cli):
    lines = quick_cli("--help").stdout.splitlines()
    assert not [line for line in lines if line.split()[:1] in (["eval"], ["summary"])]
    text = " ".join(" ".join(lines).split())
    assert "Alias: eval." in text
    assert "Alias: summary." in text


@pytest.mark.parametrize(
    ("name", "alias", "arguments"),
    [("summarize", "summary", ["baseline"]), ("evaluate", "eval", ["first"])],
)
def test_both_spellings_do_the_same_to_the_byte(quick_cli, examples, name, alias, arguments):
    for words in (arguments, [*arguments, "--json"], ["--help"], ["--nonsense"], []):
        assert quick_cli(name, *words) == quick_cli(alias, *words)


def test_the_version_is_the_packages(cli):
    assert cli("--version").stdout == f"cifar-cnn {version('cifar-cnn')}\n"


def test_without_a_command_there_is_help_and_status_2(quick_cli):
    done = quick_cli()
    assert done.returncode == 2
    assert "Usage: cifar-cnn" in done.stdout


NOISY = """
import ctypes, os, subprocess, sys
print("from the file")
os.write(1, b"from a descriptor\\n")
subprocess.run([sys.executable, "-c", "print('from a child')"])
if os.name == "posix":
    ctypes.CDLL(None).puts(b"from C")
from torch import nn
class Net(nn.Flatten):
    def forward(self, x):
        print("from the forward")
        return super().forward(x)
"""


def test_with_json_what_the_users_code_prints_goes_to_standard_error(cli, tmp_path):
    (tmp_path / "net.py").write_text(NOISY)
    done = cli("receptive-field", "--model", "net.py:Net", "--min-rf", 0, "--json")
    assert json.loads(done.stdout)["model"] == "net.py:Net"
    for source in ("the file", "a descriptor", "a child", "the forward"):
        assert f"from {source}" in done.stderr


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("runs show ", ["first", "second"]),
        ("report runs/s", ["runs/second"]),
        ("runs compare a ", ["first", "second"]),
        ("predict x.png --checkpoint f", ["first"]),
        ("train --recipe ref", ["reference"]),
        ("train --model base", ["baseline"]),
        ("summary --model comp", ["compact"]),
        ("train --resume runs/", ["runs/first", "runs/second"]),
    ],
)
def test_the_shell_completes_runs_models_and_recipes(
    quick_cli, examples, monkeypatch, words, completed
):
    monkeypatch.setenv("_CIFAR_CNN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"cifar-cnn {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
    assert quick_cli().stdout.split() == completed
