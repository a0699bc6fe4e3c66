"""Design, prove, train and ship small image classifiers under hard budgets.

The public names load on first use (PEP 562), so that the command line starts without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar_cnn.allocator import keep_freed_memory as keep_freed_memory
    from cifar_cnn.analysis.budget import Budget as Budget
    from cifar_cnn.analysis.budget import read_budget as read_budget
    from cifar_cnn.analysis.effective import effective_receptive_field as effective_receptive_field
    from cifar_cnn.analysis.proof import verify as verify
    from cifar_cnn.analysis.receptive_field import receptive_field as receptive_field
    from cifar_cnn.analysis.summary import summarize as summarize
    from cifar_cnn.api import dry_run as dry_run
    from cifar_cnn.api import effective_field as effective_field
    from cifar_cnn.api import explain as explain
    from cifar_cnn.api import find_lr as find_lr
    from cifar_cnn.api import train as train
    from cifar_cnn.errors import UserError as UserError
    from cifar_cnn.inference.evaluate import evaluate as evaluate
    from cifar_cnn.inference.export import export as export
    from cifar_cnn.inference.predict import predict as predict
    from cifar_cnn.models import build_model as build_model
    from cifar_cnn.report.comparison import compare_runs as compare_runs
    from cifar_cnn.report.run_report import write_report as write_report
    from cifar_cnn.settings import Settings as Settings
    from cifar_cnn.settings import resolve_settings as resolve_settings
    from cifar_cnn.storage.naming import find_checkpoint as find_checkpoint
    from cifar_cnn.storage.naming import find_run as find_run
    from cifar_cnn.storage.network import open_network as open_network
    from cifar_cnn.training.plan import plan_run as plan_run
    from cifar_cnn.training.record import find_runs as find_runs
    from cifar_cnn.training.record import read_run as read_run

_HOMES = {
    "Budget": "cifar_cnn.analysis.budget",
    "Settings": "cifar_cnn.settings",
    "UserError": "cifar_cnn.errors",
    "build_model": "cifar_cnn.models",
    "compare_runs": "cifar_cnn.report.comparison",
    "dry_run": "cifar_cnn.api",
    "effective_field": "cifar_cnn.api",
    "effective_receptive_field": "cifar_cnn.analysis.effective",
    "evaluate": "cifar_cnn.inference.evaluate",
    "explain": "cifar_cnn.api",
    "export": "cifar_cnn.inference.export",
    "find_checkpoint": "cifar_cnn.storage.naming",
    "find_lr": "cifar_cnn.api",
    "find_run": "cifar_cnn.storage.naming",
    "find_runs": "cifar_cnn.training.record",
    "keep_freed_memory": "cifar_cnn.allocator",
    "open_network": "cifar_cnn.storage.network",
    "plan_run": "cifar_cnn.training.plan",
    "predict": "cifar_cnn.inference.predict",
    "read_budget": "cifar_cnn.analysis.budget",
    "read_run": "cifar_cnn.training.record",
    "receptive_field": "cifar_cnn.analysis.receptive_field",
    "resolve_settings": "cifar_cnn.settings",
    "summarize": "cifar_cnn.analysis.summary",
    "train": "cifar_cnn.api",
    "verify": "cifar_cnn.analysis.proof",
    "write_report": "cifar_cnn.report.run_report",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    if not isinstance(value, type):
        value = globals()[name] = _naming_arguments(value)
    return value


def _naming_arguments(function: Any) -> Any:
    """Return the function with errors that name arguments, not the flags of the command line."""
    import functools  # not above: the current folder may have files of these names
    import inspect

    from cifar_cnn.errors import UserError, name_arguments

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except UserError as error:
            error.args = (name_arguments(str(error), inspect.signature(function).parameters),)
            raise

    call.__module__ = __name__  # where pickle finds it
    return call


def __dir__() -> list[str]:
    return sorted(__all__)
