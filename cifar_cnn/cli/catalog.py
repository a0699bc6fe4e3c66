"""`cifar-cnn models` and `cifar-cnn settings`: what the tool comes with, and its JSON schemas."""

from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from rich.console import Console

from cifar_cnn.cli.options import command
from cifar_cnn.cli.process import print_json
from cifar_cnn.recipes import DEFAULT_RECIPE, read_recipe
from cifar_cnn.settings import Settings

DRAFT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
SERIALIZATION: Literal["serialization"] = "serialization"


@command()
def models(*, console: Console) -> tuple[Any, int]:
    """The built-in networks: size, receptive field, recipe, accuracy that they reach.

    Examples:
        cifar-cnn models
        cifar-cnn models --json
    """
    from cifar_cnn.report.network_tables import built_in_networks, show_models

    networks = built_in_networks()
    show_models(console, networks)
    return networks, 0


@command()
def settings(schema: bool = False, results_schema: bool = False) -> None:
    """List all settings: their meaning, and their value in each recipe.

    Options:
        schema: Print the JSON Schema of config files instead.
        results_schema: Print the JSON Schema of what each command prints with --json instead.

    Examples:
        cifar-cnn settings
        cifar-cnn settings --schema
        cifar-cnn settings --results-schema
    """
    from cifar_cnn.report.console import people_console
    from cifar_cnn.report.runs import show_settings

    if schema:
        print_json(schema_of_settings())
    elif results_schema:
        print_json(schema_of_results())
    else:
        show_settings(people_console())


def schema_of_settings() -> dict[str, Any]:
    """Return the JSON Schema of config files, with the default recipe's values."""
    document = Settings.model_json_schema()
    for name, value in read_recipe(DEFAULT_RECIPE).items():
        document["properties"][name]["default"] = value
    return DRAFT | document


def schema_of_results() -> dict[str, Any]:
    """Return one JSON Schema with a property for each command: the document that it prints."""
    from cifar_cnn.analysis.design import Design
    from cifar_cnn.analysis.results import NetworkFailure, ReceptiveField, Summary
    from cifar_cnn.inference.evaluate import CheckpointEvaluation
    from cifar_cnn.inference.export import Exported
    from cifar_cnn.inference.predict import Predictions
    from cifar_cnn.report.comparison import Comparison
    from cifar_cnn.report.network_tables import BuiltIn
    from cifar_cnn.report.run_report import RunReport
    from cifar_cnn.results import Failure
    from cifar_cnn.training.history import RunResult
    from cifar_cnn.training.record import RunEntry, RunRecord
    from cifar_cnn.training.trial import DryRun, RangeTest

    documents: dict[str, Any] = {
        "design": Design,
        "train": RunResult | DryRun | RangeTest,
        "evaluate": CheckpointEvaluation,
        "summarize": Summary | list[Summary | NetworkFailure],
        "receptive-field": ReceptiveField | list[ReceptiveField | NetworkFailure],
        "predict": Predictions,
        "export": Exported,
        "report": RunReport,
        "models": list[BuiltIn],
        "runs": list[RunEntry],
        "runs show": RunRecord,
        "runs compare": Comparison,
    }
    kinds = [(name, SERIALIZATION, TypeAdapter(kind | Failure)) for name, kind in documents.items()]
    schemas, definitions = TypeAdapter.json_schemas(kinds, schema_generator=_WithoutDefaults)
    return {
        **DRAFT,
        "title": "What commands of cifar-cnn print with --json",
        "type": "object",
        "properties": {name: schemas[name, SERIALIZATION] for name in documents},
        "additionalProperties": False,
        **definitions,
    }


class _WithoutDefaults(GenerateJsonSchema):
    """Makes schemas of results, whose defaults nobody fills in."""

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])
