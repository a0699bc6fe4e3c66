import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_library_example_runs_as_it_stands(tmp_path):
    (example,) = [
        block for block in BLOCKS if "import cifar_cnn" in block or "cifar_cnn import" in block
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "parameters: 197922\nreceptive field: (49, 49)\n" in done.stdout
    assert (tmp_path / "runs" / "example" / "model.pt").exists()


def test_the_networks_of_the_proof_have_the_fields_it_says(tmp_path):
    from cifar_cnn import receptive_field, verify

    source = "\n".join(block for block in BLOCKS if "nn.Module" in block)
    (tmp_path / "my_net.py").write_text(source)
    net = receptive_field(f"{tmp_path / 'my_net.py'}:Net").as_dict()
    assert net["features"]["receptive_field"] == [33, 33]
    assert net["final"]["receptive_field"] == [61, 61]
    assert verify(f"{tmp_path / 'my_net.py'}:Net").agreed
    even = receptive_field(f"{tmp_path / 'my_net.py'}:Even").as_dict()
    assert even["aligned"] is False
    assert f"warning: {even['warnings'][0]}\n" in README


def test_every_command_and_flag_the_readme_names_exists():
    from cifar_cnn.cli.main import ALIASES, app
    from cifar_cnn.settings import Settings

    groups = {group.name for group in app.registered_groups}
    commands = {command.name for command in app.registered_commands} | groups | set(ALIASES)
    named = set(re.findall(r"cifar-cnn ([a-z][a-z-]*)", README))
    assert named <= commands
    assert {"train", "eval", "summary", "receptive-field"} <= named
    settings = {f"--{name.replace('_', '-')}" for name in Settings.model_fields}
    for flag in set(re.findall(r"cifar-cnn train .*?(--[a-z-]+)", README)):
        assert flag in settings | {"--resume", "--config", "--name", "--help"}, flag


def test_every_test_and_benchmark_that_readme_and_measurements_name_is_there():
    root = Path(__file__).parent.parent
    measurements = (root / "tests" / "benchmarks" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"tests/[a-z0-9_/]+\.py", README + measurements))
    assert len(named) > 15
    assert [name for name in named if not (root / name).is_file()] == []


def test_the_flags_are_those_of_help():
    import runpy

    flags = runpy.run_path(str(Path(__file__).parent / "readme" / "flags.py"))
    assert flags["replaced"](README) == README, "run: python tests/readme/flags.py"


def test_the_pictures_are_there_and_small():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert len(pictures) >= 2
    for picture in pictures:
        assert (Path(__file__).parent.parent / picture).stat().st_size < 300_000
