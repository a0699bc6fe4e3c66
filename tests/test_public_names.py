import subprocess
import sys

import pytest

import cifar_cnn


def test_every_public_name_loads():
    for name in cifar_cnn.__all__:
        assert getattr(cifar_cnn, name) is not None


def test_the_public_surface_is_pinned():
    assert set(dir(cifar_cnn)) == set(cifar_cnn.__all__)
    assert set(cifar_cnn.__all__) == {
        "Budget",
        "Settings",
        "UserError",
        "build_model",
        "compare_runs",
        "dry_run",
        "effective_field",
        "effective_receptive_field",
        "evaluate",
        "explain",
        "export",
        "find_checkpoint",
        "find_lr",
        "find_run",
        "find_runs",
        "plan_run",
        "predict",
        "read_budget",
        "read_run",
        "receptive_field",
        "resolve_settings",
        "summarize",
        "train",
        "verify",
        "write_report",
    }


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = cifar_cnn.trian


def test_importing_the_package_does_not_import_torch():
    code = "import sys, cifar_cnn; assert cifar_cnn.Settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
