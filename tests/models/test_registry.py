import os
import subprocess
import sys

import pytest
from torch import nn

from cifar_cnn.errors import ModelError
from cifar_cnn.models import build_model, is_built_in

USER_FILE = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width=4):
        super().__init__(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

class Needy(nn.Module):
    def __init__(self, width, *, depth, **rest):
        super().__init__()

class Broken(nn.Module):
    def __init__(self):
        raise OSError("no weights\\nhere")

def factory():
    return Net(8)

def not_a_network():
    return 3

ready = Net()
number = 3
"""


@pytest.fixture
def user_file(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(USER_FILE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "my_nets.py"
    sys.modules.pop("my_nets", None)


@pytest.mark.parametrize("spec", ["my_nets.py:Net", "my_nets:Net", "my_nets.py:factory"])
def test_a_users_class_or_factory_is_built(user_file, spec):
    assert isinstance(build_model(spec), nn.Sequential)
    assert not is_built_in(spec)


def test_a_path_may_be_absolute(user_file):
    assert isinstance(build_model(f"{user_file}:Net"), nn.Module)


def test_modules_in_the_current_folder_are_found_from_the_console_script_too(user_file):
    code = "import sys; sys.path.pop(0)\nfrom cifar_cnn.models import build_model\n"
    code += "build_model('my_nets:Net')"
    subprocess.run([sys.executable, "-c", code], cwd=user_file.parent, check=True)


def test_a_file_is_imported_once_and_again_when_it_has_changed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = "print('imported')\nfrom torch import nn\nclass Net(nn.Flatten): size = {}\n"
    file = tmp_path / "counting.py"
    for size in (1, 2):
        file.write_text(source.format(size))
        os.utime(file, (size, size))
        assert build_model("counting.py:Net").size == size
        assert build_model(f"{file}:Net").size == size
        assert capsys.readouterr().out == "imported\n"


def test_a_file_named_like_a_standard_module_does_not_replace_it(tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text(USER_FILE)
    monkeypatch.chdir(tmp_path)
    build_model("random.py:Net")
    import random

    assert not hasattr(random, "Net")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("basline", r"unknown model 'basline' \(did you mean 'baseline'\?\)"),
        ("my_nets.py:Nett", r"no 'Nett' \(did you mean 'Net'\?\)"),
        ("my_nets.py:Needy", r"needs arguments \(width, depth\)"),
        ("my_nets.py:Broken", "cannot be built: OSError: no weights here"),
        ("my_nets.py:ready", "not a class or factory"),
        ("my_nets.py:number", "not a class or factory"),
        ("my_nets.py:not_a_network", "returns int"),
        ("none.py:Net", "none.py does not exist"),
        ("no_such_module:Net", "importing no_such_module failed"),
    ],
)
def test_what_cannot_be_built_is_explained_in_one_line(user_file, spec, message):
    with pytest.raises(ModelError, match=message) as caught:
        build_model(spec)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("content", ["import nothing_there", "raise SystemExit(3)", "def ("])
def test_a_file_that_cannot_be_imported_is_explained_in_one_line(tmp_path, content):
    (tmp_path / "bad.py").write_text(content)
    with pytest.raises(ModelError, match=r"importing .*bad\.py failed") as caught:
        build_model(f"{tmp_path / 'bad.py'}:Net")
    assert "\n" not in str(caught.value)
