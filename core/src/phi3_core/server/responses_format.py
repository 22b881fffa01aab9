"""The form of an answer, in requests to ``/v1/responses``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from .requests import Neutral, Request, ShortText, Text, check_schema


class Format(Request):
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: ShortText | None = None
    description: Text | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.type == "json_schema") != (self.schema_ is not None):
            raise PydanticCustomError("format", "schema is stated with the type json_schema, and only there")
        check_schema(self.schema_ or {})
        return self


class TextOptions(Request):
    """How the text of an answer looks."""

    format: Format | None = None
    verbosity: Annotated[Any, Neutral("medium")] = None
