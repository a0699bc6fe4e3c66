"""What each command prints with `--json`; `settings --results-schema`. Loads torch."""

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from cifar_cnn.analysis.results import NetworkFailure, ReceptiveField, Summary
from cifar_cnn.inference.evaluate import CheckpointEvaluation
from cifar_cnn.inference.export import Exported
from cifar_cnn.inference.predict import Predictions
from cifar_cnn.report.catalog import BuiltIn
from cifar_cnn.report.comparison import Comparison
from cifar_cnn.report.run_report import RunReport
from cifar_cnn.results import Failure
from cifar_cnn.training.history import RunResult
from cifar_cnn.training.range_test import RangeTest
from cifar_cnn.training.record import Run, RunRecord
from cifar_cnn.training.trial import DryRun

Results = TypedDict(
    "Results",
    {
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
    },
    total=False,
)


def results_schema() -> dict[str, Any]:
    """Return the JSON Schema of an object with a property for each command: what it prints."""
    schema = TypeAdapter(Results).json_schema(mode="serialization", schema_generator=_Closed)
    about = {"title": "What commands of cifar-cnn print with --json"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | about


class _Closed(GenerateJsonSchema):
    """Makes schemas that know every key, and no defaults, as nobody fills these in."""

    def typed_dict_schema(self, schema: Any) -> JsonSchemaValue:
        return super().typed_dict_schema(schema) | {"additionalProperties": False}

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])
