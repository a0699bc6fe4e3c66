"""What commands print with `--json`: as the schema says, and as it was stored.

`STORE=1 pytest tests/cli/test_documents.py tests/cli/test_help.py` stores what is printed now.
"""

import json
import os
from pathlib import Path

import pytest
import typer

from cifar_cnn.cli.catalog import schema_of_results
from cifar_cnn.cli.main import app
from cifar_cnn.settings import Settings

LINES = [
    "design --max-params 12500",
    "design --max-params 5000",
    "train --dataset folder --data-dir images --epochs 1 --batch-size 12 --no-report --name x",
    "train --dataset folder --data-dir images --epochs 1 --batch-size 12 --dry-run",
    "train --dataset folder --data-dir images --batch-size 12 --find-lr --plot rates.png",
    "train --epochs none",
    "train --print-config",
    "evaluate runs/first/model.pt",
    "evaluate none.pt",
    "summarize",
    "summarize --no-budget",
    "summarize baseline none.py",
    "summarize runs/first/model.pt",
    "receptive-field",
    "receptive-field --verify --effective --samples 2",
    "receptive-field baseline none.py",
    "predict photos --checkpoint runs/first/model.pt",
    "predict photo.png none.png --checkpoint runs/first/model.pt",
    "export runs/first/model.pt --format safetensors",
    "export runs/first/model.pt --format onnx --with-preprocessing",
    "export runs/first/model.pt --format onnx --int8 --max-drop 100",
    "report runs/first --markdown hand-in.md",
    "models",
    "runs",
    "runs show first",
    "runs compare first second --plot curves.png",
    "runs compare first",
]


def _documented(group, path=()):
    for name, command in getattr(group, "commands", {}).items():
        if any("--json" in each.opts for each in command.params):
            yield " ".join((*path, name))
        yield from _documented(command, (*path, name))


STORED = Path(__file__).parent / "stored" / "documents.json"
COMPUTED = ("design", "models", "summarize", "receptive-field")
"""Commands whose numbers are the same on every machine, where nothing is drawn or trained."""
DOCUMENTED = set(_documented(typer.main.get_command(app)))


def _command(line):
    words = line.split()
    return max((" ".join(words[:n]) for n in (1, 2) if " ".join(words[:n]) in DOCUMENTED), key=len)


def _types(value):
    """Return the document with the name of its type in place of each value."""
    if isinstance(value, dict):
        return {key: _types(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_types(each) for each in value[:1]]
    return type(value).__name__


def _check_stored(line, document):
    is_computed = line.startswith(COMPUTED) and "--effective" not in line
    comparable = document if is_computed else _types(document)
    stored = json.loads(STORED.read_text())
    if os.environ.get("STORE"):
        stored = {key: value for key, value in stored.items() if key in LINES} | {line: comparable}
        STORED.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    assert comparable == stored[line]


@pytest.mark.parametrize("line", LINES)
def test_what_a_command_prints_is_as_the_published_schema_says(quick_cli, folder_of_examples, line):
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema, of the extra `test`")
    folder_of_examples()
    done = quick_cli(*line.split(), "--json")
    document = json.loads(done.stdout)
    validator = jsonschema.Draft202012Validator(schema_of_results())
    validator.validate({_command(line): document})
    assert not validator.is_valid({_command(line): {"another": 1}})
    _check_stored(line, document)
    assert not done.stderr or done.returncode


def test_every_command_that_prints_documents_is_in_the_schema_and_tried(quick_cli):
    published = json.loads(quick_cli("settings", "--results-schema").stdout)
    assert published == schema_of_results()
    assert set(published["properties"]) == DOCUMENTED
    assert {_command(line) for line in LINES} == DOCUMENTED


def test_settings_of_a_document_are_settings(quick_cli, examples):
    document = json.loads(quick_cli("runs", "show", "first", "--json").stdout)
    assert document["settings"]["input_size"] == [3, 32, 32]
    assert Settings.model_validate(document["settings"]).input_size == (32, 32)
