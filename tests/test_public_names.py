import inspect
import pickle
import subprocess
import sys

import pytest

import cifar_cnn
from cifar_cnn.errors import name_arguments

PUBLIC = """
Budget Settings UserError build_model compare_runs design dry_run effective_field
effective_receptive_field evaluate explain export find_checkpoint find_lr find_run find_runs
keep_freed_memory open_network plan_run predict read_budget read_run receptive_field
resolve_settings summarize train verify write_report
"""


def test_the_public_surface_is_pinned_and_every_name_loads():
    assert set(dir(cifar_cnn)) == set(cifar_cnn.__all__) == set(PUBLIC.split())
    for name in cifar_cnn.__all__:
        assert getattr(cifar_cnn, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = cifar_cnn.trian


def test_importing_the_package_does_not_import_torch():
    code = "import sys, cifar_cnn; assert cifar_cnn.Settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_errors_of_the_library_name_arguments_and_commands_keep_their_flags(tmp_path):
    overrides = {"dataset": "folder", "data_dir": tmp_path / "none"}
    with pytest.raises(cifar_cnn.UserError) as caught:
        cifar_cnn.train(cifar_cnn.resolve_settings(overrides), tmp_path / "run")
    assert "below data_dir, or class folders alone" in str(caught.value)
    assert name_arguments("set --no-nesterov, or --exist-ok", {"replace"}) == (
        "set nesterov=False, or replace"
    )
    kept = "run a--b is not finished: go on with cifar-cnn train --resume a--b"
    assert name_arguments(kept, ()) == kept


def test_public_functions_are_themselves_for_pickle_and_help():
    again = pickle.loads(pickle.dumps(cifar_cnn.evaluate))  # noqa: S301 - its own
    assert again is cifar_cnn.evaluate
    assert list(inspect.signature(cifar_cnn.find_run).parameters) == ["name", "output_dir"]
    assert cifar_cnn.summarize.__doc__
