import shutil
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cifar_cnn import api
from cifar_cnn.cli.main import app
from cifar_cnn.settings import resolve_settings

STUDENT = """
from torch import nn
def down(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU())
class Student(nn.Sequential):
    def __init__(self):
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
        super().__init__(down(3, 8), down(8, 16), down(16, 16), down(16, 16), *head)
"""


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


@pytest.fixture(scope="session")
def _folder_of_examples(tmp_path_factory, make_image_folder):
    """A folder as the examples suppose it: two runs, a network, others', and photos."""
    folder = tmp_path_factory.mktemp("examples")
    images = make_image_folder(folder / "images")
    (folder / "student.py").write_text(STUDENT)
    (folder / "submissions").mkdir()
    shutil.copy(folder / "student.py", folder / "submissions" / "one.py")
    shutil.copytree(images / "test" / "red", folder / "photos")
    shutil.copy(folder / "photos" / "000.png", folder / "photo.png")
    settings = {"dataset": "folder", "data_dir": images, "epochs": 1, "batch_size": 12}
    (folder / "runs").mkdir()
    api.train(resolve_settings(settings), folder / "runs" / "first", report=False)
    shutil.copytree(folder / "runs" / "first", folder / "runs" / "second")
    return folder


@pytest.fixture
def folder_of_examples(_folder_of_examples, tmp_path):
    """Fill the test's folder with a copy of it."""
    return lambda: shutil.copytree(_folder_of_examples, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def examples(quick_cli, _folder_of_examples, monkeypatch):
    """Go to the folder of examples itself; no test may change it."""
    monkeypatch.chdir(_folder_of_examples)
    return _folder_of_examples
