"""A run keeps a copy of its network's source, and says when the file is no longer that."""

import hashlib
import shutil
from pathlib import Path

import pytest

from cifar_cnn import predict, train
from cifar_cnn.errors import ModelError, NetworkWarning, UserError
from cifar_cnn.inference.export import export
from cifar_cnn.inference.trained import open_trained
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.checkpoint import read_checkpoint
from cifar_cnn.training.plan import plan_run

NET = """
from torch import nn

def make(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, num_classes))
"""


CHANGED = f"{NET}\n# changed\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_image_folder):
    """A folder with images, net.py and its run of one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "net.py").write_text(NET)
    values = {"data_dir": make_image_folder(folder / "images"), "dataset": "folder"}
    values |= {"model": "net.py", "epochs": 1, "batch_size": 8, "precision": "fp32"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(resolve_settings(values), folder / "run", report=False)
    return folder


@pytest.fixture
def image_folder(trained):
    return trained / "images"


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of that run in the current folder, with net.py."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained / "net.py", tmp_path)
    return shutil.copytree(trained / "run", tmp_path / "run")


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_copy_is_the_files_and_its_digest_is_in_each_checkpoint(run):
    assert (run / "network.py").read_text() == NET
    for name in ("last.pt", "model.pt"):
        assert read_checkpoint(run / name).source_sha256 == sha256(NET)


def test_of_a_module_it_is_the_file_in_which_the_network_is_defined(
    tmp_path, monkeypatch, small_settings
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo_of_sources").mkdir()
    (tmp_path / "zoo_of_sources" / "__init__.py").write_text("from .small import make\n")
    (tmp_path / "zoo_of_sources" / "small.py").write_text(NET)
    settings = small_settings(model="zoo_of_sources:make", epochs=1)
    train(settings, tmp_path / "run", report=False)
    assert (tmp_path / "run" / "network.py").read_text() == NET


def test_a_changed_file_is_said_in_one_line_that_names_the_copy(run, image_folder, tmp_path):
    open_trained(run / "model.pt", {"model": "net.py"})
    open_trained(run / "model.pt", {"model": f"{run / 'network.py'}:make"})
    (tmp_path / "net.py").write_text(CHANGED)
    line = (
        f"^the code of net.py is not what {run / 'model.pt'} was trained with; "
        f"{run / 'network.py'} is the run's copy of it$"
    )
    picture = image_folder / "test" / "blue" / "000.png"
    with pytest.warns(NetworkWarning, match=line):
        predict([picture], run / "model.pt", overrides={"model": "net.py"})
    with pytest.warns(NetworkWarning, match=line):
        export(run / "model.pt", "safetensors", overrides={"model": "net.py"})
    plan = plan_run({"model": "net.py", "epochs": 2}, resume=run)
    assert [note for note in plan.notes if "network.py is the run's copy" in note] == [*plan.notes]
    (run / "model.pt").rename(tmp_path / "elsewhere.pt")
    with pytest.warns(NetworkWarning, match=r"elsewhere.pt was trained with$"):
        open_trained(tmp_path / "elsewhere.pt", {"model": "net.py"})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "nn.Conv2d(3, 4, 3)",
            "nn.Conv2d(3, 4, 1)",
            r"belongs to another network: 0\.weight is .*",
        ),
        ("make(num_classes)", "make(*, width)", r"needs arguments \(width\): .*"),
    ],
)
def test_code_that_no_longer_fits_is_one_line_that_names_the_copy(run, tmp_path, old, new, said):
    (tmp_path / "net.py").write_text(NET.replace(old, new))
    copy = rf"; the code of net.py is not what .*; {run / 'network.py'} is the run's copy of it$"
    with pytest.raises(UserError, match=said + copy):
        open_trained(run / "model.pt", {"model": "net.py"})


def go_on(run, **given):
    """Go on with the changed code."""
    Path("net.py").write_text(CHANGED)
    plan = plan_run({"model": "net.py", **given}, resume=run)
    assert plan.notes[0].endswith("; going on replaces the copy by the new code's")
    train(plan.settings, plan.directory, checkpoint=plan.checkpoint, report=False)


def test_a_run_that_goes_on_with_changed_code_has_that_codes_copy_and_digest(run):
    """The weights at its end are the new code's, so the old code is not what to use them with."""
    go_on(run, epochs=2)
    assert (run / "network.py").read_text() == CHANGED
    assert read_checkpoint(run / "previous.pt").source_sha256 == sha256(NET)
    for name in ("last.pt", "model.pt"):
        assert read_checkpoint(run / name).source_sha256 == sha256(CHANGED)
        for code in ("net.py", f"{run / 'network.py'}:make"):
            open_trained(run / name, {"model": code})  # without a warning
    with pytest.warns(NetworkWarning, match=r"previous\.pt was trained with$"):
        open_trained(run / "previous.pt", {"model": "net.py"})


def test_the_best_network_keeps_the_digest_of_its_own_code(tmp_path, monkeypatch, small_settings):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    settings = small_settings(model="net.py", epochs=1, val_size=9, lr=1e-9)
    run = train(settings, tmp_path / "run", report=False).run
    go_on(run, epochs=2)
    plan = plan_run({"model": "net.py", "epochs": 3}, resume=run)
    assert plan.notes == ()
    train(plan.settings, run, checkpoint=plan.checkpoint, report=False)
    assert read_checkpoint(run / "last.pt").source_sha256 == sha256(CHANGED)
    assert read_checkpoint(run / "best.pt").metrics["epoch"] == 0
    for name in ("best.pt", "model.pt"):
        assert read_checkpoint(run / name).source_sha256 == sha256(NET)


def test_a_run_that_goes_on_elsewhere_leaves_the_copy_where_it_was(run, tmp_path):
    (tmp_path / "net.py").write_text(CHANGED)
    plan = plan_run({"model": "net.py", "epochs": 2}, resume=run, output_dir=tmp_path, name="new")
    assert plan.notes[0].endswith("is the run's copy of it")
    train(plan.settings, plan.directory, checkpoint=plan.checkpoint, report=False)
    assert (run / "network.py").read_text() == NET
    assert (tmp_path / "new" / "network.py").read_text() == CHANGED


def test_a_run_that_starts_again_has_the_new_copy(run, tmp_path, small_settings):
    (tmp_path / "net.py").write_text(CHANGED)
    train(small_settings(model="net.py", epochs=1), run, replace=True, report=False)
    assert (run / "network.py").read_text().endswith("# changed\n")
    train(small_settings(epochs=1), run, replace=True, report=False)
    assert not (run / "network.py").exists()
    assert read_checkpoint(run / "model.pt").source_sha256 is None


def test_of_a_file_that_is_gone_the_copy_is_named(run, tmp_path):
    (tmp_path / "net.py").unlink()
    said = rf"^model file net.py does not exist; {run / 'network.py'} is the run's copy of it$"
    with pytest.raises(ModelError, match=said):
        open_trained(run / "model.pt", {"model": "net.py"})
    with pytest.raises(ModelError, match=said):
        plan_run({"model": "net.py", "epochs": 2}, resume=run)
