import json

import pytest

NETWORK = """
from torch import nn
Net = lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
class Needy(nn.Module):
    def __init__(self, width):
        super().__init__()
"""


@pytest.mark.parametrize("columns", [40, 80])
def test_people_see_rows_totals_and_verdict_on_their_screen(quick_cli, columns):
    done = quick_cli("summary", columns=columns)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(len(line) for line in done.stdout.splitlines()) <= columns
    for text in ("convblock1.0", "197,922", "2.02", "2.78", "budget met"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("flags", "status", "broken"),
    [
        (["--max-params", "197922"], 1, ["max-params"]),
        (["--min-rf", "49"], 1, ["min-rf"]),
        (["--max-mult-adds", "1000"], 1, ["max-mult-adds"]),
        (["--require", "gap", "--require", "dilated"], 0, []),
        (["--no-budget", "--max-params", "1"], 0, None),
    ],
)
def test_exit_status_tells_whether_the_budget_is_met(quick_cli, flags, status, broken):
    done = quick_cli("summary", "--json", *flags)
    budget = json.loads(done.stdout)["budget"]
    assert done.returncode == status
    assert (budget and [r["name"] for r in budget["requirements"] if not r["passed"]]) == broken


def test_require_replaces_the_list(quick_cli):
    budget = json.loads(quick_cli("summary", "--json", "--require", "gap").stdout)["budget"]
    names = [r["name"] for r in budget["requirements"]]
    assert names == ["max-params", "min-rf", "require:gap"]


def test_a_users_network_and_table_are_taken_and_flags_win(quick_cli, tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.cifar-cnn.budget]\nmin-rf = 20\nrequire = ["gap"]\n'
    )
    assert quick_cli("summary", "--model", "net.py:Net").returncode == 0
    assert quick_cli("summary", "--model", "net.py:Net", "--min-rf", "32").returncode == 1
    assert quick_cli("summary", "--model", "net.py:Net", "--require", "dilated").returncode == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--require", "dilate"], "did you mean 'dilated'"),
        (["--model", "net.py:Needy"], "needs arguments (width)"),
        (["--model", "basline"], "did you mean 'baseline'"),
        (["--model", "torchvision.models:inception_v3"], "cannot take a 3×32×32 image"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(quick_cli, tmp_path, flags, said):
    (tmp_path / "net.py").write_text(NETWORK)
    done = quick_cli("summary", *flags, "--json")
    assert done.returncode == 2
    assert said in json.loads(done.stdout)["error"]
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("flags", [[], ["--json"], ["--help"], ["--nonsense"]])
def test_both_spellings_do_the_same_to_the_byte(quick_cli, flags):
    full, short = (vars(quick_cli(name, *flags)) for name in ("summarize", "summary"))
    assert full == short
