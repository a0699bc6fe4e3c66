"""Check, train, evaluate and export small image classifiers within a fixed budget.

The public names load on first use (PEP 562), so that the command line starts without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar_cnn.allocator import keep_freed_memory as keep_freed_memory
    from cifar_cnn.analysis.budget import Budget as Budget
    from cifar_cnn.analysis.budget import read_budget as read_budget
    from cifar_cnn.analysis.design import design as design
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
    name: f"cifar_cnn.{module}"
    for module, names in {
        "allocator": "keep_freed_memory",
        "analysis.budget": "Budget read_budget",
        "analysis.design": "design",
        "analysis.effective": "effective_receptive_field",
        "analysis.proof": "verify",
        "analysis.receptive_field": "receptive_field",
        "analysis.summary": "summarize",
        "api": "dry_run effective_field explain find_lr train",
        "errors": "UserError",
        "inference.evaluate": "evaluate",
        "inference.export": "export",
        "inference.predict": "predict",
        "models": "build_model",
        "report.comparison": "compare_runs",
        "report.run_report": "write_report",
        "settings": "Settings resolve_settings",
        "storage.naming": "find_checkpoint find_run",
        "storage.network": "open_network",
        "training.plan": "plan_run",
        "training.record": "find_runs read_run",
    }.items()
    for name in names.split()
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
    """Return the function with errors that name its arguments, not the command line's flags."""
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
