import json

import pytest


def test_the_document_has_size_check_and_latency(quick_cli, untrained_file):
    done = quick_cli("export", untrained_file, "--format", "safetensors", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["max_difference"] == 0
    shape = {"name": "images", "shape": ["batch", 3, 32, 32], "dtype": "float32", "range": None}
    assert document["inputs"] == shape
    shape = {"name": "log_probabilities", "shape": ["batch", 3], "dtype": "float32", "range": None}
    assert document["outputs"] == shape
    assert done.stderr == ""


def test_people_are_told_size_check_and_latency(quick_cli, untrained_file):
    done = quick_cli("export", untrained_file, "--format", "safetensors")
    lines = done.stdout.splitlines()
    file = untrained_file.with_suffix(".safetensors")
    assert lines[0] == f"saved {file}: safetensors, 0.79 MB"
    assert lines[1] == "input: images (batch, 3, 32, 32), normalized float32"
    assert lines[2] == "output: log_probabilities (batch, 3), float32"
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
