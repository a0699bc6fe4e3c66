"""Networks on a command line: their code runs apart, and CI can show what failed."""

import csv
import json
import os
import signal
import subprocess
import sys
from functools import partial
from xml.etree import ElementTree as ET

import pytest

from cifar_cnn.analysis import isolation
from cifar_cnn.analysis.budget import Budget
from cifar_cnn.cli.summarize import _summarize_one

POSIX = pytest.mark.skipif(os.name == "nt", reason="processes fork on POSIX only")
GOOD = """
from torch import nn
from width import WIDTH


def net():
    return nn.Sequential(
        nn.Conv2d(3, WIDTH, 3, 2),
        nn.Conv2d(WIDTH, WIDTH, 3, 2, groups=WIDTH),
        nn.Conv2d(WIDTH, WIDTH, 1),
        nn.Conv2d(WIDTH, WIDTH, 3, dilation=2, padding=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTH, 10),
    )
"""
SMALL = "from torch import nn\nnet = nn.Conv2d(3, 2, 1)\n"
LOADS = """
import torch
from torch.utils.data import DataLoader, Dataset
class Images(Dataset):
    def __len__(self): return 4
    def __getitem__(self, index): return torch.ones(3)
assert sum(each.sum() for each in DataLoader(Images(), num_workers=1)) == 12
try: input()
except EOFError: pass
"""
WRITES = """
import os
for file in range(3, 64):
    try: os.write(file, bytes(1))
    except OSError: pass
os._exit(0)
"""
DEEP = """
import os, sys
frame = sys._getframe()
while "at_once" not in frame.f_locals: frame = frame.f_back
frame.f_locals["file"].write_text("[" * 200_000)
os._exit(0)
"""
LEFT = "import os, time\nif not os.fork():\n    time.sleep(600)\n"
ENDED = "ended its process before an answer (0)"
ANSWERED = {"loads.py": LOADS, "left.py": LEFT, "late.py": "import atexit, os\natexit.register("
            "lambda: os._exit(0))\n"}  # fmt: skip
"""Code before a good network, which has its answer whatever that code does."""
FAILED = {
    "exits.py": ("import os; os._exit(0)", ENDED),
    "posix.py": ("import posix; posix._exit(0)", ENDED),
    "c.py": ("import ctypes; ctypes.CDLL(None)._exit(0)", ENDED),
    "execs.py": ("import os, sys; os.execv(sys.executable, [sys.executable, '-c', ''])", ENDED),
    "writes.py": (WRITES, ENDED),
    "deep.py": (DEEP, ENDED),
    "killed.py": ("import os; os.kill(os.getpid(), 11)", "(signal 11, Segmentation fault)"),
    "prints.py": ("print('not JSON'); raise ValueError('two\\nlines')", "ValueError: two lines"),
    "moves.py": ("import os; os.chdir('/'); net = None", "'moves.py:net'"),
    "leaves.py": ("raise SystemExit(0)", "SystemExit: 0 (leaves.py:1)"),
    "forward.py": (f"{SMALL}net.forward = lambda x: exit(0)", "SystemExit: 0"),
}


def run(folder, *words):
    command = [sys.executable, "-m", "cifar_cnn", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Run `summary` once on good networks and on all that end in another way."""
    folder = tmp_path_factory.mktemp("graded")
    for student, width in (("ann", 8), ("bob", 16)):
        (folder / student).mkdir()
        (folder / student / "net.py").write_text(GOOD)
        (folder / student / "width.py").write_text(f"WIDTH = {width}")
    (folder / "token.py").write_text("raise RuntimeError('not the standard library')")
    (folder / "pyproject.toml").write_text("[tool.cifar-cnn.budget]\nmin-rf = 20\n")
    others = {name: code + SMALL for name, code in ANSWERED.items()}
    others |= {name: code for name, (code, _) in FAILED.items()}
    for name, code in others.items():
        (folder / name).write_text(code)
    names = ("*/net.py:net", *(f"{name}:net" for name in others))
    files = ("--csv", "grades.csv", "--junit", "grades.xml")
    return folder, run(folder, "summary", *names, "--json", *files)


@POSIX
def test_each_network_has_its_answer_whatever_the_others_do(graded):
    _, done = graded
    assert done.returncode == 1
    first, second, *others = json.loads(done.stdout)
    assert [each["totals"]["parameters"] for each in (first, second)] == [1050, 3370]
    answers = {each["model"].partition(":")[0]: each for each in others}
    assert {*answers} == {*ANSWERED, *FAILED}
    for name in ANSWERED:
        assert answers[name]["totals"]["parameters"] == 8, answers[name]
    for name, (_, message) in FAILED.items():
        assert message in answers[name]["error"]
        assert answers[name]["exit_status"] == 2
    assert "networks" not in done.stderr
    assert "not JSON" in done.stderr


@POSIX
def test_csv_and_junit_say_of_each_requirement_what_the_single_view_says(graded):
    folder, _ = graded
    with (folder / "grades.csv").open() as file:
        rows = list(csv.DictReader(file))
    verdicts = ["met"] * 2 + ["broken"] * 3 + ["error"] * len(FAILED)
    assert [row["verdict"] for row in rows] == verdicts
    assert (rows[0]["rf_features"], rows[0]["rf_output"]) == ("23×23", "47×47")
    assert rows[0]["require:dilated"] == "yes"
    small = {name: value for name, value in rows[2].items() if name.startswith("min-rf")}
    where = "1×1 at the output, 1×1 at Conv2d; must be above the limit"
    assert small == {
        "min-rf": "no",
        "min-rf limit": "20",
        "min-rf actual": "1",
        "min-rf where": where,
    }
    assert rows[2]["limits_file"] == "pyproject.toml"
    assert rows[2]["wrong"].startswith(f"min-rf: 1 (limit 20), {where}; require:depthwise")

    suite = ET.parse(folder / "grades.xml").getroot()[0]  # noqa: S314 - our own
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("16", "3", "11")
    met, broken, error = suite[0], suite[2], suite[5]
    assert met.find("failure") is met.find("error") is None
    assert "\nmin-rf limit: 20\nmin-rf actual: 47\n" in met.findtext("system-out")
    assert broken.find("failure").get("message") == rows[2]["wrong"]
    assert f"\nmin-rf where: {where}\n" in broken.findtext("system-out")
    assert "\nlimits_file: pyproject.toml\n" in broken.findtext("system-out")
    assert error.find("error").get("message") == rows[5]["wrong"]


@POSIX
@pytest.mark.parametrize("name", ["posix.py", "writes.py", "loads.py"])
def test_one_network_is_as_one_of_several(graded, name):
    folder, several = graded
    documents = {each["model"]: each for each in json.loads(several.stdout)}
    done = run(folder, "summary", "--model", f"{name}:net", "--json")
    document = documents[f"{name}:net"]
    assert done.returncode == document.pop("exit_status", 1)
    document.pop("model" if "error" in document else "", None)
    assert json.loads(done.stdout) == document | ({"exit_status": 2} if "error" in document else {})


@POSIX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_a_verdict_under_way_with_its_status(tmp_path, number):
    (tmp_path / "net.py").write_text("import time\nprint(flush=True)\ntime.sleep(30)\n")
    command = [sys.executable, "-m", "cifar_cnn", "summary", "--model", "net.py:Net"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, process_group=0, stderr=subprocess.PIPE
    ) as process:
        process.stderr.readline()
        os.killpg(process.pid, number)
        process.wait(30)
        assert process.returncode in {-number, 128 + number}
        if number != signal.SIGKILL:  # which leaves the child, and with it the pipe
            end = b"cifar-cnn: stopped before the verdict\n"
            assert process.stderr.read().endswith(end)


def test_debug_shows_the_traceback_of_the_networks_code(tmp_path, cli):
    (tmp_path / "net.py").write_text("def helper(): raise ValueError('no')\nhelper()\n")
    assert "in helper" in cli("summary", "net.py", "--debug").stderr


def test_the_limit_of_time_holds_for_one(tmp_path, cli):
    (tmp_path / "net.py").write_text("while True: pass")
    done = cli("receptive-field", "net.py:net", "--time-limit", "1")
    message = "cifar-cnn: model 'net.py:net' took longer than 1 s: see --time-limit\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


@POSIX
def test_a_long_folder_of_temporary_files_does_no_harm(tmp_path, cli):
    (tmp_path / "net.py").write_text(SMALL)
    folder = tmp_path / (100 * "x")
    folder.mkdir()
    done = cli("summary", "net.py:net", "--no-budget", TMPDIR=str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert [*folder.iterdir()] == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse the name")
def test_a_name_that_is_no_text_is_a_name(tmp_path, quick_cli):
    name = os.fsdecode(b"n\xff.py")
    (tmp_path / name).write_text(SMALL)
    done = quick_cli("summary", f"{name}:net", "--no-budget", "--json")
    assert json.loads(done.stdout)["model"] == f"{name}:net"


def test_a_system_without_fork_spawns(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(SMALL)
    monkeypatch.setattr(isolation.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    job = partial(
        _summarize_one, overrides={}, of_several=False, budget=Budget(), assume_pointwise=()
    )
    (answer,) = isolation.answer_each(job, [f"{tmp_path}/net.py:net"], 300)
    assert (answer.error, answer.document.totals.parameters) == ("", 8)


def test_receptive_fields_of_several_are_a_list(cli):
    done = cli("receptive-field", "baseline", "compact", "--json", "--min-rf", "50")
    assert done.returncode == 1
    documents = json.loads(done.stdout)
    assert [each["final"]["receptive_field"] for each in documents] == [[49, 49], [90, 90]]
    assert [each["passed"] for each in documents] == [False, True]


def test_without_a_budget_no_operation_has_to_be_known(tmp_path, quick_cli):
    (tmp_path / "fourier.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Conv2d):\n"
        "    def __init__(self):\n        super().__init__(3, 10, 3)\n"
        "    def forward(self, x):\n"
        "        return torch.fft.fft2(super().forward(x)).real.mean((2, 3))\n"
    )
    done = quick_cli("summary", "fourier.py", "baseline", "--no-budget", "--json")
    assert done.returncode == 0, done.stderr
    assert [each["totals"]["parameters"] for each in json.loads(done.stdout)] == [280, 197_922]
