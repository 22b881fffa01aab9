"""What the requests of all dialects have in common.

Nothing that a client states is ignored in silence. A parameter that nobody knows is refused by name, and so is a known
one that would need what this server does not do, unless its value asks for nothing.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from phi3_core.errors import UsageError

from . import schemas
from .calls import MOST_CHOICES

MOST_MESSAGES = 2048
MOST_TOOLS = 128
MOST_CHARACTERS = 4 * 2**20
"""Of one text of a request."""
MOST_STOPS = 16
LONGEST_STOP = 256


class Request(BaseModel):
    """A request, or a part of one."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


def refused(why: str) -> PydanticCustomError:
    """Return the error of a validator that refuses a parameter by name."""
    return PydanticCustomError("refused", "{why}", {"why": why})


def invalid(param: str, words: str, **values: Any) -> PydanticCustomError:
    """Return the error of a validator of a whole request, of whose parameters ``param`` is at fault."""
    return PydanticCustomError("invalid", words, {"param": param, **values})


class Neutral:
    """Marks a parameter that is refused, unless it is null or one of ``values``, which ask for nothing.

    Args:
        values: what else is allowed.
        why: completes the sentence that begins with the parameter's name.
    """

    def __init__(self, *values: Any, why: str = "is not supported") -> None:
        self._values = values
        self._why = why

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic validates the parameter."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return how the server's description shows the parameter."""
        del schema, handler
        return {"enum": [None, *self._values]}

    def _check(self, value: Any) -> Any:
        # True equals 1: a number may be written with a decimal point, and is no truth value.
        if value is None or any(
            value == each and isinstance(value, bool) == isinstance(each, bool) for each in self._values
        ):
            return value
        raise refused(self._why)


def _check_stops(stops: str | list[str] | None) -> str | list[str] | None:
    each = [stops] if isinstance(stops, str) else stops or []
    if len(each) > MOST_STOPS or any(not 0 < len(text) <= LONGEST_STOP for text in each):
        words = "at most {most} strings of 1 to {longest} characters are allowed"
        raise PydanticCustomError("stops", words, {"most": MOST_STOPS, "longest": LONGEST_STOP})
    return stops


def check_schema(schema: Any) -> str:
    """Return a JSON schema as text.

    Raises:
        PydanticCustomError: it is too large, or refers to something outside of itself.
    """
    if schema is not None:
        try:
            schemas.check_schema(schema, "the schema")
        except UsageError as error:
            raise PydanticCustomError("schema", "{said}", {"said": str(error)}) from error
    return json.dumps(schema, ensure_ascii=False)


def nucleus(top_p: float | None) -> float | None:
    """Return ``top_p`` as engines take it. Clients may send 0, which leaves the likeliest token."""
    return top_p if top_p != 0 else 1e-6


Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
ShortText = Annotated[str, Field(max_length=512)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
TopK = Annotated[int, Field(ge=0)]
RepetitionPenalty = Annotated[float, Field(gt=0)]
MaxTokens = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Choices = Annotated[int, Field(ge=1, le=MOST_CHOICES)]
Stop = Annotated[str | list[str], AfterValidator(_check_stops)]
"""One or more stop strings."""


class Sampling(Request):
    """The parameters of chat and completions that are the same."""

    model: ShortText
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    repetition_penalty: RepetitionPenalty | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    n: Choices | None = None
    max_tokens: MaxTokens | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: ShortText | None = None
    """Accepted without effect: there is no abuse to look into."""
    frequency_penalty: Annotated[Any, Neutral(0)] = None
    presence_penalty: Annotated[Any, Neutral(0)] = None
    logit_bias: Annotated[Any, Neutral({})] = None

    def sampling(self) -> dict[str, Any]:
        """Return the fields of a :class:`~phi3_core.server.calls.ChatCall` that these parameters state."""
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        return {
            "model": self.model,
            "temperature": self.temperature,
            "top_p": nucleus(self.top_p),
            "top_k": self.top_k,
            "repetition_penalty": self.repetition_penalty,
            "seed": self.seed,
            "stop": None if stop is None else tuple(stop),
            "n": self.n or 1,
        }

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class StreamOptions(Request):
    """How a stream is written."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, Neutral(False)] = None


Sampling.model_rebuild()
