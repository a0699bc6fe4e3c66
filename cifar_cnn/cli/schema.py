"""The JSON Schema of what each command prints with `--json`. Loads torch."""

from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from cifar_cnn.analysis.results import NetworkFailure, ReceptiveField, Summary
from cifar_cnn.inference.evaluate import CheckpointEvaluation
from cifar_cnn.inference.export import Exported
from cifar_cnn.inference.predict import Predictions
from cifar_cnn.report.comparison import Comparison
from cifar_cnn.report.network_tables import BuiltIn
from cifar_cnn.report.run_report import RunReport
from cifar_cnn.results import Failure
from cifar_cnn.training.history import RunResult
from cifar_cnn.training.record import Run, RunRecord
from cifar_cnn.training.trial import DryRun, RangeTest

SERIALIZED: Literal["serialization"] = "serialization"
RESULTS: dict[str, Any] = {
    "train": RunResult | DryRun | RangeTest | Failure,
    "evaluate": CheckpointEvaluation | Failure,
    "summarize": Summary | list[Summary | NetworkFailure] | Failure,
    "receptive-field": ReceptiveField | list[ReceptiveField | NetworkFailure] | Failure,
    "predict": Predictions | Failure,
    "export": Exported | Failure,
    "report": RunReport | Failure,
    "models": list[BuiltIn] | Failure,
    "runs": list[Run] | Failure,
    "runs show": RunRecord | Failure,
    "runs compare": Comparison | Failure,
}
"""What each command prints."""


def results_schema() -> dict[str, Any]:
    """Return the JSON Schema of an object that has, for each command, what it prints."""
    kinds = [(name, SERIALIZED, TypeAdapter(kind)) for name, kind in RESULTS.items()]
    schemas, definitions = TypeAdapter.json_schemas(kinds, schema_generator=_WithoutDefaults)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What commands of cifar-cnn print with --json",
        "type": "object",
        "properties": {name: schemas[name, SERIALIZED] for name in RESULTS},
        "additionalProperties": False,
        **definitions,
    }


class _WithoutDefaults(GenerateJsonSchema):
    """Makes schemas of results, whose defaults nobody fills in."""

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])
