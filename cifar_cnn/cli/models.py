"""`cifar-cnn models`: the built-in networks."""

from cifar_cnn.cli.options import JsonFlag
from cifar_cnn.cli.output import print_json


def models(json: JsonFlag = False) -> None:
    """The built-in networks: size, receptive field, recipe, accuracy that they reach.

    Examples:
        cifar-cnn models
        cifar-cnn models --json
    """
    from cifar_cnn.report.console import people_console
    from cifar_cnn.report.network_tables import built_in_networks, show_models

    networks = built_in_networks()
    show_models(people_console(json=json), networks)
    if json:
        print_json(networks)
