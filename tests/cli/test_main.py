import json
import os
import subprocess
import sys

import pytest

from cifar_cnn.errors import system_line

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
    assert not [line for line in lines if line.split()[:1] in (["eval"], ["summary"])]
    text = " ".join(" ".join(lines).split())
    assert "Alias: eval." in text
    assert "Alias: summary." in text


def test_the_version_is_the_packages(cli):
    from importlib.metadata import version

    assert cli("--version").stdout == f"cifar-cnn {version('cifar-cnn')}\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sumarize", "No such command 'sumarize'. Did you mean 'summarize'? see cifar-cnn --help"),
        ("sumary x.py", "No such command 'sumary'. Did you mean 'summary'? see cifar-cnn --help"),
        ("evall x.pt", "No such command 'evall'. Did you mean 'eval'? see cifar-cnn --help"),
        ("validate x.pt", "No such command 'validate'; see cifar-cnn --help"),
        ("train --split x", "No such option: --split; see cifar-cnn train --help"),
        ("runs shoow", "No such command 'shoow'. Did you mean 'show'? see cifar-cnn runs --help"),
        ("eval --modle x", "No such option: --modle. Did you mean --model? "
         "see cifar-cnn evaluate --help"),
        (
            "receptive-field --target nose",
            "Invalid value for '--target': 'nose' is not one of 'features', 'logits'; see "
            "cifar-cnn receptive-field --help",
        ),
        ("summary --max-params x", "Invalid value for '--max-params': it has to be a whole number; "
         "see cifar-cnn summarize --help"),
        ("train x", "Got unexpected extra argument(s) (x); see cifar-cnn train --help"),
        ("predict", "Missing argument 'IMAGE'; see cifar-cnn predict --help"),
        ("summary --model", "Option '--model' requires an argument; see --help"),
        ("eval x.pt --model a:b --model=c:d",
         "--model is given twice, and one network is wanted: give it once"),
        ("report https://a.b/c", "there is no run https://a.b/c"),
    ],
)  # fmt: skip
def test_a_misuse_is_one_line_with_the_nearest_name(quick_cli, line, said):
    done = quick_cli(*line.split())
    assert (done.stdout, done.stderr) == ("", f"cifar-cnn: {said}\n")
    assert done.returncode == (1 if "report" in line else 2)


def test_without_a_command_there_is_help_and_status_2(quick_cli):
    done = quick_cli()
    assert done.returncode == 2
    assert "Usage: cifar-cnn" in done.stdout


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("summary --model basline", 2),
        ("summary --nope", 2),
        ("sumarize", 2),
        ("eval none.pt", 1),
        ("train --lr -1", 2),
        ("runs show none", 1),
    ],
)
def test_a_failure_is_a_document_too_with_json(quick_cli, line, status):
    done = quick_cli(*line.split(), "--json")
    document = json.loads(done.stdout)
    assert list(document) == ["error", "exit_status"]
    assert document["exit_status"] == done.returncode == status
    assert done.stderr == f"cifar-cnn: {document['error']}\n"


FLAGS_THAT_WRITE = [
    ("summary baseline --csv", "CSV", ".csv"),
    ("summary baseline --junit", "XML", ".xml"),
    ("receptive-field baseline --csv", "CSV", ".csv"),
    ("receptive-field baseline --junit", "XML", ".xml"),
    ("receptive-field --effective --plot", "a PNG picture", ".png"),
    ("runs compare a b --plot", "a PNG picture", ".png"),
    ("train --dataset synthetic --find-lr --plot", "a PNG picture", ".png"),
    ("eval none --predictions", "CSV", ".csv"),
    ("predict none.png --checkpoint none --explain", "a PNG picture", ".png"),
]


@pytest.mark.parametrize(("line", "kind", "suffix"), FLAGS_THAT_WRITE)
def test_a_flag_that_writes_replaces_no_file_of_another_kind(
    quick_cli, tmp_path, line, kind, suffix
):
    before = {"a.py": b"mine", "model.pt": b"mine", f"{suffix[1:]}": b"mine", "a.svg": b"mine"}
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    flag = line.split()[-1]
    for name in before:
        done = quick_cli(*line.split(), name)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"cifar-cnn: {flag} writes {kind}: {name} has to end in {suffix}\n"
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("line", "own"),
    [
        (line, {".csv": "metrics.csv", ".png": "curves.png"}[suffix])
        for line, _, suffix in FLAGS_THAT_WRITE
        if suffix != ".xml"
    ],
)
def test_a_flag_that_writes_replaces_no_file_of_a_run(quick_cli, tmp_path, line, own):
    (tmp_path / "run").mkdir()
    for name in ("settings.toml", own):
        (tmp_path / "run" / name).write_text("its own")
    done = quick_cli(*line.split(), f"run/{own}")
    said = f"cifar-cnn: run/{own} is a run's own file: give {line.split()[-1]} another name\n"
    assert (done.returncode, done.stdout, done.stderr.replace("\\", "/")) == (1, "", said)
    assert (tmp_path / "run" / own).read_text() == "its own"


def test_the_suffix_may_be_in_capitals_and_its_file_is_replaced(quick_cli, tmp_path):
    (tmp_path / "GRADES.CSV").write_text("of last year")
    assert quick_cli("summary", "baseline", "--csv", "GRADES.CSV").returncode == 0
    assert (tmp_path / "GRADES.CSV").read_text().startswith("model,")


@pytest.mark.parametrize(
    "line",
    [
        *("train --resume", "train --data-dir", "eval", "report u --compare", "runs --output-dir"),
        *("predict a.png", "export u --format onnx --output", "summary --csv"),
    ],
)
def test_an_empty_word_is_one_line_and_nothing_is_done(quick_cli, tmp_path, line):
    *words, last = line.split()
    said = (
        f"the word after {last} is empty (a variable that is not set?): fill it in, or leave it out"
    )
    if last.startswith("--"):
        assert quick_cli(*words, f"{last}=").stderr == f"cifar-cnn: {said}\n"
    done = quick_cli(*words, last, "", "--json")
    assert json.loads(done.stdout) == {"error": said, "exit_status": 2}
    assert (done.returncode, done.stderr) == (2, f"cifar-cnn: {said}\n")
    assert [*tmp_path.iterdir()] == []


def test_an_equals_sign_at_the_end_of_a_value_is_no_empty_word(quick_cli):
    done = quick_cli("summary", "--model=none=", "--model-arg", "text=")
    assert done.stderr.startswith("cifar-cnn: unknown model 'none='")


@pytest.mark.skipif(os.name == "nt", reason="has another limit, and says it otherwise")
@pytest.mark.parametrize(
    "line",
    [
        *("report", "eval", "runs --output-dir", "summary", "train --resume"),
    ],
)
def test_what_the_system_refuses_is_one_line_without_its_number(quick_cli, line):
    done = quick_cli(*line.split(), f"{300 * 'x'}z", "--json")
    said = f"…{59 * 'x'}z cannot be used: File name too long"
    assert json.loads(done.stdout) == {"error": said, "exit_status": 1}
    assert (done.returncode, done.stderr) == (1, f"cifar-cnn: {said}\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError("no\nplace"), "no place"),
        (PermissionError(13, "Permission denied", "a/b"), "a/b cannot be used: Permission denied"),
        (OSError(18, "Invalid link", "a", None, "b"), "a cannot be used: Invalid link"),
    ],
)
def test_the_systems_words_are_said_with_the_file_that_they_are_about(error, said):
    assert system_line(error) == said


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


def test_a_terminal_that_knows_only_ascii_does_not_end_the_program(cli):
    done = cli("summary", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "budget met" in done.stdout
