from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cifar_cnn.cli.main import app


@pytest.fixture
def quick_cli(tmp_path, monkeypatch):
    """Run `cifar-cnn` inside the test's own process, in an empty folder: quicker than `cli`."""
    monkeypatch.chdir(tmp_path)

    def run(*args, columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        done = CliRunner().invoke(app, [*map(str, args)], prog_name="cifar-cnn")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return SimpleNamespace(stdout=done.stdout, stderr=done.stderr, returncode=done.exit_code)

    return run
