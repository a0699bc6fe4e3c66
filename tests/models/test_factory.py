"""Arguments for the user's own network: who gets which, and what is said of wrong ones."""

import pytest
from torch import nn

from cifar_cnn.errors import ModelError
from cifar_cnn.models import build_model
from cifar_cnn.models.registry import check_heard, full_spec
from cifar_cnn.settings import parse_arguments, resolve_settings

STUDENT = """
from torch import nn

class Block(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.Conv2d(inputs, outputs, 3), nn.ReLU())

class Net(nn.Module):
    def __init__(self, width, num_classes=10, dropout=0.0, name="net"):
        super().__init__()
        self.given = width, num_classes, dropout, name

def anything(**arguments):
    return Net(**arguments)

ready = Net(3)
"""


@pytest.fixture
def student(tmp_path):
    (tmp_path / "student.py").write_text(STUDENT)
    return str(tmp_path / "student.py")


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
        ('a="None"', "None"),
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


def test_arguments_come_before_what_is_filled_in(student):
    given = build_model(f"{student}:Net", 3, 0.5, model_arg=["width=8", "name=mine"]).given
    assert given == (8, 3, 0.5, "mine")
    arguments = ["width=(8, 16)", "num_classes=7", "dropout=0.1"]
    assert build_model(f"{student}:Net", 3, 0.5, model_arg=arguments).given[:3] == ((8, 16), 7, 0.1)


def test_a_factory_of_any_arguments_gets_them_all(student):
    assert build_model(f"{student}:anything", model_arg=["width=1", "name=x"]).given[0] == 1


def test_each_network_has_lists_of_its_own(student):
    one, other = (build_model(f"{student}:Net", model_arg=["width=[1]"]).given[0] for _ in "ab")
    assert one == other
    assert one is not other


@pytest.mark.parametrize(
    ("model_arg", "name"),
    [(["width=8"], "Net"), (["inputs=3", "outputs=4"], "Block"), ([], "ready")],
)
def test_the_network_of_a_file_is_the_one_that_takes_the_arguments(student, model_arg, name):
    assert full_spec(student, model_arg) == f"{student}:{name}"
    assert isinstance(build_model(student, model_arg=model_arg), nn.Module)


@pytest.mark.parametrize(
    ("spec", "model_arg", "message"),
    [
        (":Net", [], r"needs arguments \(width\): give them, as --model-arg width=VALUE"),
        (":Net", ["num_classes=3"], r"needs arguments \(width\)"),
        (":Block", ["inputs=3"], r"needs arguments \(outputs\)"),
        (
            ":Net",
            ["widht=8"],
            r"no argument 'widht' \(did you mean 'width'\?\): it has width, num_c",
        ),
        (":ready", ["width=8"], "is an instance, built already: leave --model-arg out"),
        (":Net", ["width"], "'width' is not NAME=VALUE"),
        (":Net", ["=8"], "'=8' is not NAME=VALUE"),
        (":Net", ["2wide=8"], "'2wide=8' is not NAME=VALUE"),
        (":Net", ["width=8", "width=8"], "width is given twice"),
        (":anything", ["name=x"], r"needs arguments \(.*'width'\)"),
        (None, ["num_classes=3"], "baseline is built in and takes no arguments"),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(student, spec, model_arg, message):
    with pytest.raises(ModelError, match=message) as caught:
        build_model("baseline" if spec is None else f"{student}{spec}", model_arg=model_arg)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_a_file_whose_networks_all_need_arguments_lists_them(tmp_path):
    (tmp_path / "student.py").write_text(STUDENT[: STUDENT.index("def anything")])
    for given, more in (([], ""), (["widht=8"], r"; none has 'widht' \(did you mean 'width'\?\)")):
        needs = r"Block \(inputs, outputs\), Net \(width, num_classes, dropout, name\)"
        with pytest.raises(ModelError, match=f"needs arguments, {needs}{more}: name one") as caught:
            build_model(str(tmp_path / "student.py"), model_arg=given)
        assert "student.py:Net, and give its own by --model-arg" in str(caught.value)


NEEDS_DROPOUT = """
from torch import nn

class Block(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.Conv2d(inputs, outputs, 3))

class Net(nn.Module):
    def __init__(self, dropout, num_classes=None):
        super().__init__()
        self.given = dropout, num_classes

def helper(width):
    return width
"""


@pytest.mark.parametrize("attribute", ["", ":Net"])
def test_a_dropout_that_is_needed_is_filled_in(tmp_path, attribute):
    (tmp_path / "drop.py").write_text(NEEDS_DROPOUT)
    spec = f"{tmp_path / 'drop.py'}{attribute}"
    for dropout in (0.1, 0.0):
        check_heard(resolve_settings({"model": spec, "dropout": dropout}))
        assert build_model(spec, 3, dropout).given == (dropout, 3)
    assert build_model(spec, model_arg=["dropout=0.2"]).given == (0.2, None)
    line = r"needs arguments \(dropout\): .*dropout=VALUE \(to train, dropout by --dropout VALUE\)"
    with pytest.raises(ModelError, match=line):
        check_heard(resolve_settings({"model": spec}))


def test_a_network_that_needs_no_dropout_comes_before_one_that_does(tmp_path):
    (tmp_path / "drop.py").write_text(f"{NEEDS_DROPOUT}\ndef make():\n    return Net(0.5)\n")
    assert build_model(str(tmp_path / "drop.py"), 3, 0.1).given == (0.5, None)


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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "--model-arg width=VALUE"),
        ({"model_arg": ["width=8", "depth=3"]}, "no argument 'depth'"),
        (
            {"model_arg": ["width=8", "dropout=0.1"], "dropout": 0.2},
            "dropout is given by --dropout",
        ),
    ],
)
def test_a_run_is_refused_before_it_loads_images(student, given, message):
    with pytest.raises(ModelError, match=message):
        check_heard(resolve_settings({"model": f"{student}:Net", **given}))
