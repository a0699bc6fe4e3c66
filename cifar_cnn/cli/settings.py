"""`cifar-cnn settings`: what can be set, for people and for editors."""

from typing import Annotated

import typer

from cifar_cnn.cli.output import print_json
from cifar_cnn.recipes import DEFAULT_RECIPE, read_recipe
from cifar_cnn.settings import Settings


def settings(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of config files instead.")
    ] = False,
    results_schema: Annotated[
        bool,
        typer.Option(
            "--results-schema",
            help="Print the JSON Schema of what each command prints with --json instead.",
        ),
    ] = False,
) -> None:
    """Every setting, its value in each recipe, and what it means.

    Examples:
        cifar-cnn settings
        cifar-cnn settings --schema
        cifar-cnn settings --results-schema
    """
    if schema:
        document = Settings.model_json_schema()
        for name, value in read_recipe(DEFAULT_RECIPE).items():
            document["properties"][name]["default"] = value
        print_json({"$schema": "https://json-schema.org/draft/2020-12/schema"} | document)
        return
    if results_schema:
        from cifar_cnn.cli.schema import results_schema as schema_of_results

        print_json(schema_of_results())
        return
    from cifar_cnn.report.console import people_console
    from cifar_cnn.report.runs import show_settings

    show_settings(people_console())
