"""`cifar-cnn summarize`: layers, sizes and the budget verdict."""


def summarize() -> None:
    """Layers, parameters, sizes and the budget verdict of a network. Alias: summary."""
