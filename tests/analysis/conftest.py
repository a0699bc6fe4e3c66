import pytest
from torch import nn


class Net(nn.Module):
    """A function of the network and its image, with layers."""

    def __init__(self, function, layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


@pytest.fixture
def net():
    """Make a network of a function of itself and its image, with layers; return a module as is."""

    def make(function, **layers):
        return function if isinstance(function, nn.Module) else Net(function, layers)

    return make
