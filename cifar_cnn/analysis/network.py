"""The network to analyze, from a name or a module, without weights where that can be."""

import warnings

from torch import nn

from cifar_cnn.errors import ModelError
from cifar_cnn.models import build_model

Model = str | nn.Module
"""A built-in name, `module:attr` or `path.py:attr`; or the module itself."""


def network(model: Model) -> tuple[str, nn.Module]:
    """Return the network and its name.

    Raises:
        ModelError: it cannot be found or built.
    """
    if isinstance(model, nn.Module):
        return type(model).__name__, model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that copying into no memory does nothing
            return model, build_model(model, device="meta")
    except ModelError:  # a constructor that reads its own weights needs them to be there
        return model, build_model(model)
