import json

import pytest

from cifar_cnn import Budget

NETWORK = """
from torch import nn
Net = lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.mark.parametrize(
    ("flags", "status", "broken"),
    [
        ("--max-params 197922", 1, ["max-params"]),
        ("--min-rf 49", 1, ["min-rf"]),
        ("--max-mult-adds 1000", 1, ["max-mult-adds"]),
        ("--max-flash 100kB", 1, ["max-flash"]),
        ("--device-preset pico", 0, []),
        ("--device-preset pico --max-ram 29KiB", 1, ["max-ram"]),
        ("--require gap --require dilated", 0, []),
        ("--no-budget --max-params 1", 0, None),
    ],
)
def test_exit_status_tells_whether_the_budget_is_met(quick_cli, flags, status, broken):
    done = quick_cli("summary", "--json", *flags.split())
    budget = json.loads(done.stdout)["budget"]
    assert done.returncode == status
    assert (budget and [r["name"] for r in budget["requirements"] if not r["passed"]]) == broken


def test_the_help_names_the_limits_of_the_default_budget(quick_cli):
    text = " ".join(quick_cli("summary", "--help", columns=100).stdout.split())
    assert f"strictly fewer (default: {Budget().max_params})" in text
    assert f"above N pixels (default: {Budget().min_rf})" in text


def test_require_replaces_the_list(quick_cli):
    budget = json.loads(quick_cli("summary", "--json", "--require", "gap").stdout)["budget"]
    names = [r["name"] for r in budget["requirements"]]
    assert names == ["max-params", "min-rf", "require:gap"]


def test_a_users_network_and_table_are_taken_and_flags_win(quick_cli, tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.cifar-cnn.budget]\nmin-rf = 20\nrequire = ["gap"]\n'
    )
    assert quick_cli("summary", "net.py:Net").returncode == 0
    assert quick_cli("summary", "net.py:Net", "--min-rf", "32").returncode == 1
    assert quick_cli("summary", "net.py:Net", "--require", "dilated").returncode == 1


def test_memory_is_shown_with_its_unit_and_an_unreadable_size_is_one_line(quick_cli):
    done = quick_cli("summary", "--max-flash", "100kB")
    for line in ("Flash (KiB): 195.3 int8, 770.4 fp32", "RAM peak: convblock2.0.depthwise"):
        assert line in done.stdout.splitlines()
    assert "100 KiB  195.3 KiB  199,984 bytes" in done.stdout
    done = quick_cli("summary", "--max-flash", "12xB")
    assert done.returncode == 2
    assert done.stderr.startswith("cifar-cnn: budget item max-flash = '12xB' is invalid: ")
    assert len(done.stderr.splitlines()) == 1
