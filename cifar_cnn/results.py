"""The base of all results: frozen data whose JSON is what `--json` prints."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

T = TypeVar("T")

Pair = tuple[int, int]
"""(height, width), or (vertical, horizontal)."""
Number = Annotated[int | float, WithJsonSchema({"type": "number"})]
"""A whole number prints without a decimal point."""
Share = Annotated[float, Field(json_schema_extra={"minimum": 0, "maximum": 1})]
IfGiven = Annotated[T | SkipJsonSchema[None], Field(exclude_if=lambda value: value is None)]
"""A field that the JSON leaves out if it is None."""
NotInJson = Annotated[T, SkipValidation(), Field(exclude=True)]
"""A field that the JSON and its schema leave out."""


class Result(BaseModel):
    """A result; its fields are the keys of its JSON."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        serialize_by_alias=True,
        json_schema_serialization_defaults_required=True,
    )


class Failure(Result):
    """What a command prints if it fails."""

    error: str
    exit_status: int
