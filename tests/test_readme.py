"""The pages that people read: what they show is run, in the order in which it stands."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import onnx
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from cifar_cnn.cli.main import ALIASES, app

ROOT = Path(__file__).parent.parent
FOLDERS = ("", "cifar_cnn/analysis", "cifar_cnn/inference", "cifar_cnn/training")
PAGES = [ROOT / folder / "README.md" for folder in FOLDERS]
"""In the order in which a reader who starts with the first meets them."""
MEASUREMENTS = ROOT / "tests" / "benchmarks" / "README.md"
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NETWORKS = "nn.Module"
FEWER = {"synthetic": ["--limit-train", "100", "--limit-eval", "100"], "folder": []}
"""What makes a page's training short enough for a test."""


def command_lines(text):
    """Return each command of a block with the output shown below it."""
    blocks = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(first, rest.splitlines()) for first, _, rest in (b.partition("\n") for b in blocks)]


def invoke(words):
    done = CliRunner().invoke(app, words, prog_name="cifar-cnn")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def run_shown(line, shown):
    """Run a command that a page shows; hold what it says of networks against the page."""
    name, *words = shlex.split(line)
    assert name == "cifar-cnn"
    if words[0] == "train":
        words += ["--no-report", *FEWER[words[words.index("--dataset") + 1]]]
    if "--int8" in words:
        words += ["--max-drop", "100"]  # a network of 100 images may lose much
    done = invoke(words)
    expected = 1 if "budget broken" in "".join(shown) else 0
    assert done.exit_code == expected, f"{line}: {done.stderr}"
    if words[0] in {"summary", "receptive-field"}:
        printed = [each.rstrip() for each in (done.stdout + done.stderr).splitlines()]
        assert [each for each in shown if each not in {"…", "", *printed}] == [], line


def test_every_example_runs_in_the_order_in_which_it_stands(
    tmp_path, monkeypatch, make_image_folder
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    make_image_folder(tmp_path / "images")
    Image.new("RGB", (40, 50), "red").save("photo.png")
    start = next(each for each in TEXT.split("&& ") if each.startswith("cifar-cnn train"))
    run_shown(start.splitlines()[0], [])
    ran = 0
    for language, block in FENCE.findall(TEXT):
        if language == "console":
            for line, shown in command_lines(block):
                run_shown(line, shown)
                ran += 1
        elif language == "python" and NETWORKS in block:
            with Path("my_net.py").open("a") as file:
                file.write(block)
        elif language == "python":
            words = [sys.executable, "-W", "error", "-c", block]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            ran += 1
    assert ran >= 18
    onnx.checker.check_model("runs/quick/model.onnx")


def test_the_library_example_does_what_it_says(tmp_path):
    (example,) = [b for _, b in FENCE.findall(TEXT) if "cifar_cnn import" in b]
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "parameters: 197922\nreceptive field: (49, 49)\n" in done.stdout
    accuracies = re.findall(r"(?:trained|mirror images): (0\.\d+)", done.stdout)
    assert len(accuracies) == 2
    assert all(float(each) > 0.2 for each in accuracies), "ten classes: chance is 0.1"


def test_training_commands_in_the_text_are_valid():
    spans = re.findall(r"`((?:torchrun [^`]*-m )?cifar[-_]cnn train [^`]*)`", TEXT)
    spans += re.findall(r"^ *(?:torchrun .*|    )-m (cifar_cnn train [^#\n]*)", TEXT, re.MULTILINE)
    assert len(spans) >= 8
    for span in spans:
        words = shlex.split(span.replace(" E`", " 5`"))
        words = ["5" if word == "E" else word for word in words[words.index("train") :]]
        if "--resume" not in words:
            done = invoke([*words, "--print-config"])
            assert done.exit_code == 0, f"{span}: {done.stderr}"


@pytest.mark.parametrize(("page", "rows"), [(PAGES[0], 6), (MEASUREMENTS, 7)])
def test_the_command_of_each_accuracy_reads_the_images_that_it_was_measured_on(page, rows):
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"^\| `(cifar-cnn train[^`]*)`.*\| \d+ \| [89]\d\.", text, re.MULTILINE)
    assert len(lines) == rows
    for line in lines:
        config = tomllib.loads(invoke([*shlex.split(line)[1:], "--print-config"]).stdout)
        read = [config[name] for name in ("dataset", "data_dir", "normalization")]
        assert read == ["folder", "images", "cifar10"], line


def options(command):
    """Return the flags of a command and of those below it."""
    below = [options(each) for each in getattr(command, "commands", {}).values()]
    return {flag for each in command.params for flag in each.opts + each.secondary_opts}.union(
        *below
    )


def test_every_command_and_flag_that_is_named_exists():
    root = typer.main.get_command(app)
    named = set(re.findall(r"cifar-cnn ([a-z][a-z-]*)", TEXT))
    assert {"train", "eval", "summary", "receptive-field"} <= named
    assert named - {"budget"} <= set(root.commands) | set(ALIASES)
    lines = re.sub(r"torchrun .*\\\n|torchrun |docker run (?:.*\\\n)+", "", TEXT).splitlines()
    ours = "\n".join(each for each in lines if not re.search(r"python tests/|id: |--nproc", each))
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", ours))
    assert len(flags) > 40
    assert flags - {"--help"} <= options(root)


def test_every_test_and_benchmark_that_is_named_is_there():
    named = set(re.findall(r"tests/[a-z0-9_/]+\.py", TEXT + MEASUREMENTS.read_text("utf-8")))
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", [*PAGES, MEASUREMENTS], ids=lambda page: page.parent.name)
def test_links_lead_to_files_and_pictures_are_small(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
        file = page.parent / target
        assert file.is_file(), target
        assert file.suffix != ".png" or file.stat().st_size < 300_000


def test_the_front_page_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 220
