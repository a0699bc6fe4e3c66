"""The user's own network: how it is named, imported, given its arguments, and refused."""

import importlib
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from cifar_cnn.errors import ModelError, RunError
from cifar_cnn.models import build_model, is_built_in
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.registry import check_settings, find_definition
from cifar_cnn.settings import parse_arguments, resolve_settings

NETS = """
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
STUDENT = """
from torch import nn

class Block(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.Conv2d(inputs, outputs, 3), nn.ReLU())

class Net(nn.Module):
    def __init__(self, width, num_classes=10, dropout=0.0, name="net"):
        super().__init__()
        self.given = width, num_classes, dropout, name
"""
FILES = {
    "my_nets": NETS,
    "student": STUDENT,
    "course": f"{STUDENT}\ndef anything(**options):\n    return Net(**options)\n\nready = Net(3)",
    "drop": STUDENT.replace(
        "width, num_classes=10, dropout=0.0", "dropout, num_classes=10, width=1"
    ),
    "bad": "import nothing_there",
    "leaving": "raise SystemExit(3)",
    "syntax": "def (",
    "empty": "from torch import nn\n",
}


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, code in FILES.items():
        (tmp_path / f"{name}.py").write_text(code)
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        if name.partition(".")[0] in {"my_nets", "zoo", "common", "inside_src", "loose"}:
            del sys.modules[name]


@pytest.mark.parametrize("spec", ["my_nets.py:Net", "my_nets:Net", "my_nets.py:factory"])
def test_a_users_class_or_factory_is_built(tmp_path, spec):
    assert isinstance(build_model(spec), nn.Sequential)
    assert not is_built_in(spec)
    assert isinstance(build_model(f"{tmp_path / 'my_nets.py'}:Net"), nn.Module)


def test_an_instance_is_copied():
    one, other = build_model("my_nets.py:ready"), build_model("my_nets.py:ready")
    assert one is not other
    assert one[0].weight.data_ptr() != other[0].weight.data_ptr()
    assert one[0].weight.equal(other[0].weight)


def test_modules_in_the_current_folder_are_found_from_the_console_script_too():
    code = "import sys; sys.path.pop(0)\nfrom cifar_cnn.models import build_model\n"
    code += "build_model('my_nets:Net')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_is_imported_once_and_again_when_it_has_changed(tmp_path, capsys):
    source = "print('imported')\nfrom torch import nn\nclass Net(nn.Flatten): size = {}\n"
    file = tmp_path / "counting.py"
    for size in (1, 2):
        file.write_text(source.format(size))
        os.utime(file, (size, size))
        assert build_model("counting.py:Net").size == size
        assert build_model(f"{file}:Net").size == size
        assert capsys.readouterr().out == "imported\n"


STUDENTS = r"Block \(inputs, outputs\), Net \(width, num_classes, dropout, name\)"


@pytest.mark.parametrize(
    ("spec", "model_arg", "message"),
    [
        ("basline", [], r"unknown model 'basline' \(did you mean 'baseline'\?\)"),
        ("baseline", ["width=3"], "model 'baseline' has no argument 'width'"),
        ("none.py:Net", [], "none.py does not exist"),
        ("no_such_module:Net", [], "importing no_such_module failed"),
        ("bad.py:Net", [], r"importing bad\.py failed"),
        ("leaving.py", [], r"importing leaving\.py failed"),
        ("syntax.py", [], r"importing syntax\.py failed"),
        ("empty.py", [], "no class or factory of a network"),
        ("my_nets.py", [], r"several networks, Net \(width\), Broken \(\), Sized \(num_classes, d"),
        ("student.py", [], rf"several networks, {STUDENTS}: name one, as student.py:Net, and pass"),
        (
            "student.py",
            ["widht=8"],
            rf"{STUDENTS}; none takes 'widht' \(did you mean 'width'\?\): name one",
        ),
        ("my_nets.py:Nett", [], r"no 'Nett' \(did you mean 'Net'\?\); it has Net, .*, passing,"),
        ("my_nets.py:ResNet", [], r"my_nets.py has no 'ResNet'; it has Net, "),
        ("my_nets.py:number", [], "not a class or factory"),
        ("my_nets.py:not_a_network", [], "returns int"),
        ("my_nets.py:Broken", [], "cannot be built: OSError: no weights here"),
        ("my_nets.py:leaving", [], "cannot be built: SystemExit"),
        ("my_nets.py:passing", [], "cannot be built: TypeError: .*'width'"),
        ("my_nets.py:Needy", [], r"needs arguments \(width, depth\): give them, as --model-arg wi"),
        ("course.py:Block", ["inputs=3"], r"needs arguments \(outputs\)"),
        (
            "course.py:Net",
            ["widht=8"],
            r"no argument 'widht' \(did you mean 'width'\?\): it has width, num_c",
        ),
        ("course.py:ready", ["width=8"], "has no argument 'width': leave --model-arg out"),
        ("course.py:Net", ["width"], "'width' is not NAME=VALUE"),
        ("course.py:Net", ["=8"], "'=8' is not NAME=VALUE"),
        ("course.py:Net", ["2wide=8"], "'2wide=8' is not NAME=VALUE"),
        ("course.py:Net", ["width=8", "width=8"], "width is given twice"),
    ],
)
def test_what_cannot_be_built_is_explained_in_one_line(spec, model_arg, message):
    with pytest.raises(ModelError, match=message) as caught:
        build_model(spec, model_arg=model_arg)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (
            "class Block(nn.Module):\n    def __init__(self, n): ...\nclass Net(nn.Flatten): ...",
            "Net",
        ),
        ("model = nn.Flatten()", "model"),
        ("def make(): return nn.Flatten()\ndef helper(n): ...", "make"),
        ("class Mine(nn.Flatten): ...\nmodel = Mine()\ndef main(): ...", "Mine"),
    ],
)
def test_a_file_names_the_only_network_in_it(tmp_path, code, name):
    (tmp_path / "only.py").write_text(f"from torch import nn\n{code}\n")
    assert find_definition("only.py").spec == f"only.py:{name}"
    assert isinstance(build_model("only.py"), nn.Flatten)


@pytest.mark.parametrize(
    ("model_arg", "name"),
    [(["width=8"], "Net"), (["inputs=3", "outputs=4"], "Block"), ([], "ready")],
)
def test_the_network_of_a_file_is_the_one_that_takes_the_arguments(model_arg, name):
    assert find_definition("course.py", model_arg).name == name
    assert isinstance(build_model("course.py", model_arg=model_arg), nn.Module)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=8", 8),
        ("a=-1e-3", -0.001),
        ("a=True", True),
        ("a=None", None),
        ("a=[1, (2, 3)]", [1, (2, 3)]),
        ("a='8'", "8"),
        ("a=gelu", "gelu"),
        ("a=true", True),
        ("a=No", False),
        ("a=OFF", False),
        ("a=null", None),
        ("a='off'", "off"),
        ("a=x=y", "x=y"),
        ("a=", ""),
        (" a = 3 ", 3),
        ("a=__import__('os')", "__import__('os')"),
        ("a=1is", "1is"),
        ("a=" + "(" * 10_000, "(" * 10_000),
        ("a={[]: 1}", "{[]: 1}"),
    ],
)
def test_a_value_is_a_python_literal_or_the_text_itself(text, value):
    assert parse_arguments([text]) == {"a": value}


@pytest.mark.parametrize(
    ("spec", "options", "given"),
    [
        ("my_nets.py:Sized", {}, (10, 0.5)),
        ("my_nets.py:Sized", {"num_classes": 3}, (3, 0.5)),
        ("my_nets.py:Sized", {"num_classes": 3, "dropout": 0.0}, (3, 0.0)),
        ("my_nets.py:labels", {}, ((("cat", "dog"), 7), 0.5)),
        ("my_nets.py:labels", {"num_classes": 3}, ((("cat", "dog"), 3), 0.5)),
        (
            "course.py:Net",
            {"num_classes": 3, "dropout": 0.5, "model_arg": ["width=8", "name=mine"]},
            (8, 3, 0.5, "mine"),
        ),
        (
            "course.py:Net",
            {"num_classes": 3, "model_arg": ["width=(8, 16)", "num_classes=7", "dropout=0.1"]},
            ((8, 16), 7, 0.1, "net"),
        ),
        ("course.py:anything", {"model_arg": ["width=1", "name=x"]}, (1, 10, 0.0, "x")),
    ],
)
def test_arguments_come_before_classes_and_dropout_which_are_filled_in(spec, options, given):
    assert build_model(spec, **options).given == given


@pytest.mark.parametrize("name", ["num_classes", "n_classes", "classes"])
@pytest.mark.parametrize(
    ("default", "given"),
    [("=None", 3), (": int | None = None", 3), ("=7", 3), ("", 3), ("=['a']", ["a"]), ("=()", ())],
)
def test_a_number_of_classes_is_filled_in_for_a_number_or_none(tmp_path, name, default, given):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        f"    def __init__(self, {name}{default}):\n"
        "        super().__init__()\n"
        f"        self.given = {name}\n"
    )
    assert build_model(f"{tmp_path / 'net.py'}", 3).given == given


def test_each_network_has_lists_of_its_own():
    one, other = (build_model("course.py:Net", model_arg=["width=[1]"]).given[0] for _ in "ab")
    assert one == other
    assert one is not other


@pytest.mark.parametrize("spec", ["drop.py", "drop.py:Net"])
def test_a_dropout_that_is_needed_is_filled_in(spec):
    for dropout in (0.1, 0.0):
        check_settings(resolve_settings({"model": spec, "dropout": dropout}))
        assert build_model(spec, 3, dropout).given == (1, 3, dropout, "net")
    assert build_model(spec, model_arg=["dropout=0.2"]).given == (1, 10, 0.2, "net")
    line = r"needs arguments \(dropout\): .*dropout=VALUE \(to train, dropout by --dropout VALUE\)"
    with pytest.raises(ModelError, match=line):
        check_settings(resolve_settings({"model": spec}))


def test_a_network_that_needs_no_dropout_comes_before_one_that_does(tmp_path):
    (tmp_path / "drop.py").write_text(f"{FILES['drop']}\ndef make():\n    return Net(0.5)\n")
    assert build_model("drop.py", 3, 0.1).given == (1, 10, 0.5, "net")


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("baseline", {"dropout": 0.1, "ghost_batch_size": 8}, None),
        ("my_nets.py:Net", {}, None),  # a recipe's dropout is not given to it
        ("my_nets.py:Sized", {"dropout": 0.1}, None),
        ("my_nets.py:Net", {"dropout": 0.1}, "dropout does not reach my_nets.py:Net"),
        ("my_nets.py:Net", {"ghost_batch_size": 8}, "ghost_batch_size is for built-in networks"),
        ("course.py:Net", {}, "--model-arg width=VALUE"),
        ("course.py:Net", {"model_arg": ["width=8", "depth=3"]}, "no argument 'depth'"),
        (
            "course.py:Net",
            {"model_arg": ["width=8", "dropout=0.1"], "dropout": 0.2},
            "dropout is given by --dropout",
        ),
    ],
)
def test_settings_that_would_not_reach_the_users_network_are_refused(model, settings, message):
    resolved = resolve_settings({"recipe": "reference", "model": model, **settings})
    if message is None:
        check_settings(resolved)
        return
    with pytest.raises(ModelError, match=message):
        check_settings(resolved)


PACKAGE = {
    "repo/pyproject.toml": "",
    "repo/common.py": "from torch import nn\nPARTS = [nn.Flatten()]\n",
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


def test_a_file_is_loaded_as_part_of_its_package_and_finds_its_repository(tmp_path):
    for name, content in PACKAGE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    network = build_model("repo/zoo/nets/own.py:Net")
    assert type(network).__module__ == "zoo.nets.own"
    assert build_model("loose/own.py:Net").part == "loose.part"


def test_a_file_sees_its_own_name_and_no_arguments(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cifar-cnn", "summary", "--model", "net.py:Net"])
    (tmp_path / "net.py").write_text(
        "import argparse\nfrom torch import nn\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--width', default=4)\n"
        "class Net(nn.Flatten): program, width = parser.prog, parser.parse_args().width\n"
    )
    network = build_model("net.py:Net")
    assert (network.program, network.width) == ("net.py", 4)
    assert sys.argv[0] == "cifar-cnn"


def test_files_of_the_user_stand_in_no_librarys_place(tmp_path, monkeypatch):
    for name in ("safetensors", "onnx", "timeit"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text("MINE = True\n")
    (tmp_path / "random.py").write_text(
        "from torch import nn\nimport sys, os\nsys.path.insert(0, os.path.dirname(__file__))\n"
        "import timeit, safetensors\n"
        "class Net(nn.Flatten): mine = safetensors.MINE and timeit.MINE\n"
    )
    assert build_model("random.py:Net").mine is True
    for name in ("safetensors", "timeit", "onnx", "random"):
        assert not hasattr(importlib.import_module(name), "MINE")
        assert not hasattr(importlib.import_module(name), "Net")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_an_error_around_a_scripted_network_is_one_line():
    with (
        pytest.raises(RunError, match=r"^it fails: ValueError: not scripted ones"),
        guarded("it fails", model=torch.jit.script(nn.Linear(2, 2))),
    ):
        raise ValueError("not scripted ones")
