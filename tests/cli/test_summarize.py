import json

import pytest

NETWORK = """
from torch import nn
Net = lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
class Needy(nn.Module):
    def __init__(self, width):
        super().__init__()
"""


def test_json_is_the_only_thing_on_standard_output_and_has_the_contracts_keys(cli):
    done = cli("summary", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert list(document) == ["model", "input_size", "layers", "totals", "budget"]
    assert document["model"] == "baseline"
    assert document["input_size"] == [3, 32, 32]
    assert document["layers"][0] == {
        "name": "convblock1.0",
        "type": "Conv2d",
        "output_size": [24, 32, 32],
        "parameters": 648,
        "mult_adds": 663_552,
    }
    assert document["totals"]["parameters"] == 197_922
    assert document["totals"]["non_trainable"] == 0
    assert list(document["totals"]) == [
        *("parameters", "trainable", "non_trainable", "mult_adds"),
        *("input_mb", "forward_backward_mb", "parameters_mb", "total_mb"),
    ]
    assert document["budget"]["passed"] is True
    assert document["budget"]["requirements"][0] == {
        "name": "max-params",
        "limit": 200_000,
        "actual": 197_922,
        "passed": True,
        "detail": document["budget"]["requirements"][0]["detail"],
    }
    assert document["budget"]["features"]["receptive_field"] == [25, 25]
    assert document["budget"]["final"] == {"receptive_field": [49, 49], "covers_input": True}
    assert done.stderr == ""


def test_people_see_rows_totals_and_verdict(quick_cli):
    done = quick_cli("summary")
    assert done.returncode == 0
    for text in ("DepthwiseSeparableConv", "197,922", "2.02", "2.78", "budget met"):
        assert text in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("flags", "status", "broken"),
    [
        (["--max-params", "197922"], 1, ["max-params"]),
        (["--min-rf", "49"], 1, ["min-rf"]),
        (["--max-mult-adds", "1000"], 1, ["max-mult-adds"]),
        (["--require", "gap", "--require", "dilated"], 0, []),
        (["--no-budget", "--max-params", "1"], 0, []),
    ],
)
def test_exit_status_tells_whether_the_budget_is_met(quick_cli, flags, status, broken):
    done = quick_cli("summary", "--json", *flags)
    budget = json.loads(done.stdout)["budget"]
    assert done.returncode == status
    if "--no-budget" in flags:
        assert budget is None
    else:
        assert [r["name"] for r in budget["requirements"] if not r["passed"]] == broken


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
        (["--model", "torchvision.models:vgg16"], None),
        (["--model", "torchvision.models:inception_v3"], "cannot take a 3×32×32 image"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(quick_cli, tmp_path, flags, said):
    (tmp_path / "net.py").write_text(NETWORK)
    done = quick_cli("summary", *flags, "--json")
    if said is None:  # a network over budget is an answer, not a mistake
        assert done.returncode == 1
        return
    assert done.returncode == 2
    assert said in json.loads(done.stdout)["error"]
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_both_spellings_do_the_same_to_the_byte(quick_cli):
    for flags in ([], ["--json"], ["--help"], ["--nonsense"]):
        full, short = quick_cli("summarize", *flags), quick_cli("summary", *flags)
        assert (full.stdout, full.stderr, full.returncode) == (
            short.stdout,
            short.stderr,
            short.returncode,
        )


@pytest.mark.parametrize("columns", [40, 80])
def test_the_tables_fit_the_screen(quick_cli, columns):
    done = quick_cli("summary", columns=columns)
    assert max(len(line) for line in done.stdout.splitlines()) <= columns
    assert "197,922" in done.stdout
    assert "convblock1.0" in done.stdout
