import json

import pytest


def test_it_says_size_check_and_latency(quick_cli, untrained_file):
    done = quick_cli("export", untrained_file, "--format", "safetensors", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert list(document) == [
        "file",
        "format",
        "size",
        "inputs",
        "outputs",
        "max_difference",
        "milliseconds",
    ]
    assert document["max_difference"] == 0
    lines = done.stderr.splitlines()
    assert lines[0] == f"saved {document['file']}: safetensors, 0.79 MB"
    assert lines[3] == "largest difference from PyTorch on 100 images: 0"
    assert lines[4].startswith("latency: ")
    assert lines[5] == "arithmetic: fp32, as predict's unless --precision says otherwise"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["{file}", "--format", "onxx"], 2, "did you mean 'onnx'"),
        (["{file}", "--format", "onnx", "--opset", "3"], 2, "opset 3 is out of range"),
        (["none.pt", "--format", "onnx"], 1, "none.pt cannot be read"),
        (["{file}", "--format", "onnx", "--output", "{file}"], 1, "exists: choose another"),
    ],
)
def test_a_mistake_ends_in_one_line_and_its_exit_status(
    quick_cli, untrained_file, arguments, status, message
):
    done = quick_cli("export", *(each.format(file=untrained_file) for each in arguments))
    assert done.returncode == status
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
