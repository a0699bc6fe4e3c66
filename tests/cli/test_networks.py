"""Several networks on one command line: none touches another, and CI can show what failed."""

import csv
import json
from xml.etree import ElementTree as ET

import pytest

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
BAD = {
    "loops.py": "while True: pass",
    "exits.py": "import os; os._exit(0)",
    "prints.py": "print('not JSON'); raise ValueError('two\\nlines')",
    "moves.py": "import os; os.chdir('/'); net = None",
    "leaves.py": "raise SystemExit(0)",
    "writes.py": "import os\nfor file in range(3, 64):\n    try: os.write(file, bytes(1))\n"
    "    except OSError: pass\nos._exit(0)",
}


@pytest.fixture
def submissions(tmp_path):
    for student, width in (("ann", 8), ("bob", 16)):
        folder = tmp_path / "submissions" / student
        folder.mkdir(parents=True)
        (folder / "net.py").write_text(GOOD)
        (folder / "width.py").write_text(f"WIDTH = {width}")
    (tmp_path / "token.py").write_text("raise RuntimeError('not the standard library')")
    for name, code in BAD.items():
        (tmp_path / "submissions" / name).write_text(code)
    return tmp_path


@pytest.fixture
def graded(submissions, cli):
    return cli(
        *("summary", "submissions/*/net.py:net", "submissions/*.py:net", "--min-rf", "20"),
        *("--time-limit", "5", "--json", "--csv", "grades.csv", "--junit", "grades.xml"),
    )


def test_each_network_has_its_answer_whatever_the_others_do(graded, submissions):
    assert graded.returncode == 1
    documents = json.loads(graded.stdout)
    assert [each["totals"]["parameters"] for each in documents[:2]] == [1050, 3370]
    errors = {each["model"]: each for each in documents[2:]}
    assert set(errors) == {f"submissions/{name}:net" for name in BAD}
    assert "took longer than 5 s" in errors["submissions/loops.py:net"]["error"]
    assert errors["submissions/loops.py:net"]["exit_status"] == 1
    assert "ended its process (status 0)" in errors["submissions/exits.py:net"]["error"]
    assert "ended its process (status 0)" in errors["submissions/writes.py:net"]["error"]
    assert "ValueError: two lines" in errors["submissions/prints.py:net"]["error"]
    assert errors["submissions/prints.py:net"]["exit_status"] == 2
    assert "networks" not in graded.stderr
    assert "not JSON" in graded.stderr

    with (submissions / "grades.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == ["met"] * 2 + ["error"] * 6
    assert rows[0]["require:dilated"] == "yes"
    assert (rows[0]["rf_features"], rows[0]["rf_output"]) == ("23×23", "47×47")

    suite = ET.parse(submissions / "grades.xml").getroot()[0]  # noqa: S314 - our own
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("8", "0", "6")
    assert [len(case) for case in suite] == [0] * 2 + [1] * 6


def test_a_broken_budget_is_a_failed_test(submissions, cli):
    done = cli(
        *("summary", "baseline", "--model", "compact", "--max-params", "190000"),
        *("--junit", "grades.xml"),
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "baseline: max-params: 197,922" in done.stdout
    first, second = ET.parse(submissions / "grades.xml").getroot()[0]  # noqa: S314 - our own
    assert first.find("failure").get("message") == "max-params: 197,922"
    assert len(second) == 0


def test_receptive_fields_of_several_are_a_list(cli):
    done = cli("receptive-field", "baseline", "compact", "--json", "--min-rf", "50")
    assert done.returncode == 1
    documents = json.loads(done.stdout)
    assert [each["final"]["receptive_field"] for each in documents] == [[49, 49], [90, 90]]
    assert [each["passed"] for each in documents] == [False, True]


def test_one_network_may_stand_without_a_flag(cli):
    done = cli("summary", "compact", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["model"] == "compact"


def test_without_a_budget_no_operation_has_to_be_known(tmp_path, cli):
    (tmp_path / "fourier.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Conv2d):\n"
        "    def __init__(self):\n        super().__init__(3, 10, 3)\n"
        "    def forward(self, x):\n"
        "        return torch.fft.fft2(super().forward(x)).real.mean((2, 3))\n"
    )
    done = cli("summary", "fourier.py", "baseline", "--no-budget", "--json")
    assert done.returncode == 0, done.stderr
    assert [each["totals"]["parameters"] for each in json.loads(done.stdout)] == [280, 197_922]


def test_a_folder_that_is_not_there_is_said_before_any_network_runs(cli):
    done = cli("summary", "baseline", "compact", "--csv", "none/grades.csv")
    said = "cifar-cnn: none/grades.csv cannot be written: there is no folder none\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("summary", "nets/*.py:net"), "no file matches nets/*.py: name files that are there"),
        (("receptive-field", "baseline", "compact", "--verify"), "are for one network: give one"),
    ],
)
def test_what_cannot_be_asked_of_several_is_one_line(cli, arguments, said):
    done = cli(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
