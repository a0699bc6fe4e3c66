"""`cifar-cnn receptive-field`: the receptive field of every layer."""


def receptive_field() -> None:
    """Receptive field, jump and padding of every layer."""
