import subprocess
import sys

import pytest

COMMANDS = [
    "train",
    "evaluate",
    "eval",
    "summarize",
    "summary",
    "receptive-field",
    "predict",
    "export",
    "report",
    "runs",
    "runs show",
    "settings",
]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_answers_without_importing_torch(command):
    code = (
        "import sys\n"
        "from cifar_cnn.cli.main import app\n"
        f"sys.argv = ['cifar-cnn', *{command.split()!r}, '--help']\n"
        "try:\n"
        "    app(prog_name='cifar-cnn')\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: cifar-cnn" in done.stdout


def test_aliases_have_no_line_of_their_own_and_are_named_by_their_command(cli):
    lines = cli("--help").stdout.splitlines()
    assert not [line for line in lines if line.startswith(("│ eval ", "│ summary "))]
    text = " ".join(" ".join(line.strip("│ ").split()) for line in lines)
    assert "Alias: eval." in text
    assert "Alias: summary." in text


def test_the_version_is_the_packages(cli):
    from importlib.metadata import version

    assert cli("--version").stdout == f"cifar-cnn {version('cifar-cnn')}\n"


def test_an_unknown_command_is_answered_with_the_one_that_was_meant(cli):
    done = cli("sumarize")
    assert done.returncode == 2
    assert "Did you mean 'summarize'?" in done.stderr


def test_every_setting_is_a_flag_of_train(cli):
    from cifar_cnn.settings import Settings

    text = cli("train", "--help", COLUMNS="200").stdout
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in text


def test_help_fits_40_columns(cli):
    for command in (["--help"], ["train", "--help"]):
        assert max(map(len, cli(*command, COLUMNS="40").stdout.splitlines())) <= 40


def test_a_terminal_that_knows_only_ascii_does_not_end_the_program(cli):
    done = cli("summary", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "budget met" in done.stdout
