import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs_as_it_stands(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
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


def test_every_command_and_flag_the_readme_names_exists():
    from cifar_cnn.cli.main import ALIASES, app
    from cifar_cnn.settings import Settings

    commands = {command.name for command in app.registered_commands} | set(ALIASES)
    named = set(re.findall(r"cifar-cnn ([a-z-]+)", README)) - {"settings"}
    assert named <= commands
    assert {"train", "eval", "summary", "receptive-field"} <= named
    settings = {f"--{name.replace('_', '-')}" for name in Settings.model_fields}
    for flag in set(re.findall(r"cifar-cnn train .*?(--[a-z-]+)", README)):
        assert flag in settings | {"--resume", "--config", "--name", "--help"}, flag
