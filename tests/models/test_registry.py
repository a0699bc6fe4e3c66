import importlib
import os
import subprocess
import sys

import pytest
from torch import nn

from cifar_cnn.errors import ModelError
from cifar_cnn.models import build_model, is_built_in
from cifar_cnn.models.registry import check_heard, full_spec
from cifar_cnn.settings import resolve_settings

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

def passing(**kwargs):
    return Needy(depth=1, **kwargs)

def leaving():
    raise SystemExit(0)

class Sized(nn.Module):
    def __init__(self, num_classes, dropout=0.5):
        super().__init__()
        self.given = num_classes, dropout

def labels(classes=("cat", "dog"), n_classes=7):
    return Sized((classes, n_classes))

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
        ("my_nets.py:Nett", r"no 'Nett' \(did you mean 'Net'\?\); it has Net, .*, passing,"),
        ("my_nets.py:ResNet", r"my_nets.py has no 'ResNet'; it has Net, "),
        ("my_nets.py:Needy", r"needs arguments \(width, depth\)"),
        ("my_nets.py:Broken", "cannot be built: OSError: no weights here"),
        ("my_nets.py:passing", r"needs arguments \(.*'width'\)"),
        ("my_nets.py:leaving", "cannot be built: SystemExit"),
        ("my_nets.py", r"has several networks: name one, as my_nets.py:Net \(Net, Broken, Sized\)"),
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


def test_an_instance_is_copied(user_file):
    one, other = build_model("my_nets.py:ready"), build_model("my_nets.py:ready")
    assert one is not other
    assert one[0].weight.data_ptr() != other[0].weight.data_ptr()
    assert one[0].weight.equal(other[0].weight)


@pytest.mark.parametrize(
    ("spec", "arguments", "given"),
    [
        ("Sized", {}, (10, 0.5)),
        ("Sized", {"num_classes": 3}, (3, 0.5)),
        ("Sized", {"num_classes": 3, "dropout": 0.0}, (3, 0.0)),
        ("labels", {}, ((("cat", "dog"), 7), 0.5)),
        ("labels", {"num_classes": 3}, ((("cat", "dog"), 3), 0.5)),
    ],
)
def test_a_network_that_takes_the_number_of_classes_or_a_dropout_gets_it(
    user_file, spec, arguments, given
):
    assert build_model(f"my_nets.py:{spec}", **arguments).given == given


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (
            "class Block(nn.Module):\n    def __init__(self, n): ...\nclass Mine(nn.Flatten): ...",
            "Mine",
        ),
        ("model = nn.Flatten()", "model"),
        ("def make(): return nn.Flatten()\ndef helper(n): ...", "make"),
        ("class Mine(nn.Flatten): ...\nmodel = Mine()\ndef main(): ...", "Mine"),
    ],
)
def test_a_file_names_the_only_network_in_it(tmp_path, code, name):
    file = tmp_path / "student.py"
    file.write_text(f"from torch import nn\n{code}\n")
    assert full_spec(str(file)) == f"{file}:{name}"
    assert isinstance(build_model(str(file)), nn.Flatten)


def test_a_file_without_a_network_says_so(tmp_path):
    (tmp_path / "empty.py").write_text("from torch import nn\n")
    with pytest.raises(ModelError, match="no class or factory of a network"):
        build_model(str(tmp_path / "empty.py"))


PACKAGE = {
    "repo/pyproject.toml": "",
    "repo/common.py": "PARTS = [nn.Flatten()]".join(("from torch import nn\n", "\n")),
    "repo/src/inside_src.py": "",
    "repo/zoo/__init__.py": "import inside_src\n",
    "repo/zoo/nets/__init__.py": "",
    "repo/zoo/nets/beside.py": "",
    "repo/zoo/nets/own.py": "from torch import nn\nfrom common import PARTS\nfrom . import beside\n"
    "import zoo\nclass Net(nn.Sequential):\n    def __init__(self): super().__init__(*PARTS)\n",
    "loose/part.py": "",
    "loose/own.py": "from torch import nn\nfrom .part import __name__ as name\n"
    "class Net(nn.Flatten): part = name\n",
}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in PACKAGE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    before, path = {*sys.modules}, [*sys.path]
    yield tmp_path
    sys.path[:] = path
    for name in {*sys.modules} - before:
        if name.partition(".")[0] in {"zoo", "common", "inside_src", "loose"}:
            del sys.modules[name]


def test_a_file_is_loaded_as_part_of_its_package_and_finds_its_repository(packages):
    network = build_model("repo/zoo/nets/own.py:Net")
    assert type(network).__module__ == "zoo.nets.own"


def test_a_file_may_import_relatively_without_a_package_file(packages):
    assert build_model("loose/own.py:Net").part == "loose.part"


def test_a_file_sees_its_own_name_and_no_arguments(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cifar-cnn", "summary", "--model", "net.py:Net"])
    (tmp_path / "net.py").write_text(
        "import argparse\nfrom torch import nn\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--width', default=4)\n"
        "class Net(nn.Flatten): program, width = parser.prog, parser.parse_args().width\n"
    )
    network = build_model(f"{tmp_path / 'net.py'}:Net")
    assert (network.program, network.width) == ("net.py", 4)
    assert sys.argv[0] == "cifar-cnn"


def test_a_file_beside_the_users_stands_in_no_librarys_place(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("safetensors", "onnx", "timeit"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text("MINE = True\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\nimport sys, os\nsys.path.insert(0, os.path.dirname(__file__))\n"
        "import timeit, safetensors\n"
        "class Net(nn.Flatten): mine = safetensors.MINE and timeit.MINE\n"
    )
    assert build_model(f"{tmp_path / 'net.py'}:Net").mine is True
    for name in ("safetensors", "timeit", "onnx"):
        assert not hasattr(importlib.import_module(name), "MINE")


def test_settings_that_the_users_network_would_not_hear_of_are_refused(user_file):
    def settings(**given):
        return resolve_settings({"recipe": "reference", **given})

    check_heard(settings(model="baseline", dropout=0.1, ghost_batch_size=8))
    check_heard(settings(model="my_nets.py:Net"))
    check_heard(settings(model="my_nets.py:Sized", dropout=0.1))
    with pytest.raises(ModelError, match=r"dropout does not reach my_nets.py:Net"):
        check_heard(settings(model="my_nets.py:Net", dropout=0.1))
    with pytest.raises(ModelError, match="ghost_batch_size is for built-in networks"):
        check_heard(settings(model="my_nets.py:Net", ghost_batch_size=8))


def test_a_recipe_records_nothing_that_the_users_network_does_not_hear_of():
    own = resolve_settings({"recipe": "reference", "model": "net.py:Net"})
    assert own.dropout is None
    assert resolve_settings({"model": "net.py:Net"}).ghost_batch_size == 0
    assert resolve_settings({"recipe": "reference"}).dropout == 0.02
