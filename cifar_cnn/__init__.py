"""Design, prove, train and ship small image classifiers under hard budgets.

The public names load on first use (PEP 562), so that the command line starts without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar_cnn.models import build_model
    from cifar_cnn.settings import Settings, resolve_settings

_HOMES = {
    "Settings": "cifar_cnn.settings",
    "build_model": "cifar_cnn.models",
    "resolve_settings": "cifar_cnn.settings",
}

__all__ = ["Settings", "build_model", "resolve_settings"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
