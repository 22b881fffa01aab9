"""Errors as responses, in the form that the clients of each dialect parse.

Whatever goes wrong becomes an :class:`ApiError`, and its dialect's form of it the body of the response, or the last
event of a stream.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from phi3_core.errors import (
    ModelError,
    NoDeviceError,
    Phi3Error,
    PromptTooLongError,
    QueueFullError,
    UsageError,
)

from .addresses import meant

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

logger = logging.getLogger("phi3_core")

RETRY_AFTER_S = 1
"""When a client that was refused for lack of room should ask again."""
_LONGEST_MESSAGE = 1000
_NAME = re.compile(r"[a-z_]+|\d+")
_ALTERNATIVES = {"str", "int", "float", "bool"}
_PROMPTS = {"/v1/completions": "prompt", "/v1/responses": "input"}
"""The parameter with the prompt, where it is not ``messages``."""
_CODES = {400: "invalid_json", 404: "not_found", 405: "method_not_allowed"}
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


class ApiError(Exception):
    """An error as a client is told of it.

    Args:
        status: the status of HTTP.
        message: one or two sentences.
        param: the parameter of the request that is at fault, if one is.
        code: a word for programs, such as ``model_not_found``.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 1] + "…"
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def type(self) -> str:
        """OpenAI's word for the kind of error."""
        return _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")


class RefusedParameterError(ApiError):
    """A parameter is not supported, or not by the engine that the model runs on."""

    def __init__(self, param: str, why: str) -> None:
        super().__init__(400, f"{param!r} {why}", param=param, code="unsupported_parameter")


class StoppingError(ApiError):
    """The server is being stopped."""

    def __init__(self) -> None:
        super().__init__(503, "the server is being stopped", code="stopping", headers={"Retry-After": "5"})


def api_error(error: Exception) -> ApiError:
    """Return what a client is told of an exception."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, _sentence(error), headers=error.headers, code=_CODES.get(error.status_code))
    if isinstance(error, Phi3Error):
        return _of_runtime(error)
    logger.error("unexpected %s in the server: %s", type(error).__name__, error, exc_info=error)
    return ApiError(500, "the server failed unexpectedly; its log says more", code="internal_error")


def _of_runtime(error: Phi3Error) -> ApiError:
    text = str(error)
    if isinstance(error, QueueFullError):
        return ApiError(503, text, code="queue_full", headers={"Retry-After": str(RETRY_AFTER_S)})
    if isinstance(error, PromptTooLongError):
        return ApiError(400, text, code="context_length_exceeded")
    if isinstance(error, UsageError):
        return ApiError(400, text, code="invalid_value")
    logger.error("%s", error)
    if isinstance(error, (ModelError, NoDeviceError)):
        # Its text may name folders of this machine.
        return ApiError(503, "the model cannot be loaded; the server's log says why", code="model_unavailable")
    return ApiError(500, f"the engine failed: {error.message}", code="engine_failed")


def _sentence(error: HTTPException) -> str:
    if error.status_code == 400:  # of FastAPI, which could not read the body
        return "the body is not valid JSON"
    if error.status_code == 404:
        return "there is nothing at this address"
    if error.status_code == 405:
        return "this address does not answer this method"
    return str(error.detail)


def _invalid(error: RequestValidationError) -> ApiError:
    """Return the first of the things that are wrong with a request, by the parameter's name."""
    # Of what may be one thing or another, pydantic tells why it is neither: the deepest reason is of the one meant.
    # What only has another type than an alternative was meant as another one.
    first = max(
        error.errors(),
        key=lambda each: (each["type"] == "refused", len(each["loc"]), not each["type"].endswith("_type")),
    )
    param = _param(first["loc"], whole=first["type"] == "extra_forbidden")
    kind, said = first["type"], str(first["msg"])
    if kind == "json_invalid":
        return ApiError(400, "the body is not valid JSON", code="invalid_json")
    if kind == "extra_forbidden":
        return RefusedParameterError(str(param), "is not supported; this server refuses what it would otherwise ignore")
    if kind == "model_attributes_type" and not param:
        return ApiError(400, "the body is no JSON object, or Content-Type is not application/json", code="invalid_json")
    if kind == "missing":
        what = f"{param!r} is missing" if param else "the request has no JSON body"
        return ApiError(400, what, param=param, code="missing_required_parameter")
    if kind == "refused":
        return RefusedParameterError(str(param), said)
    # A check of a whole request states the parameter: see `requests.invalid`.
    named = param or first.get("ctx", {}).get("param")
    return ApiError(400, f"{param!r}: {said}" if param else said, param=named, code="invalid_value")


def _param(place: tuple[int | str, ...], *, whole: bool) -> str | None:
    """Return the name of a parameter, without the words that pydantic adds for the alternatives of a type.

    Args:
        place: where pydantic found something wrong.
        whole: whether the last part is what the client has written, whatever it looks like.
    """
    parts = [str(part) for part in place if part not in {"body", "query", "path"}]
    last = parts[-1:] if whole else []
    names = [part for part in parts[: len(parts) - len(last)] if _NAME.fullmatch(part) and part not in _ALTERNATIVES]
    return ".".join([*names, *last]) or None


# --- forms ------------------------------------------------------------------------------------------------------------

Form = Callable[[ApiError, str], dict[str, Any]]
"""Makes the body of a response from an error and the request's id."""


def openai_form(error: ApiError, request_id: str) -> dict[str, Any]:  # noqa: ARG001 - a Form
    """Return OpenAI's form of an error."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


FORMS: dict[str, Form] = {}
"""The forms of dialects that have one of their own, by the beginning of their paths."""


def form_of(path: str) -> Form:
    """Return the form of errors for a request to ``path``."""
    return next((form for beginning, form in FORMS.items() if path.startswith(beginning)), openai_form)


def encode(content: Any) -> bytes:
    """Return a JSON document. Every character can be sent, also half of one that a client has sent."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")


def respond(error: ApiError, path: str, request_id: str, **headers: str) -> Response:
    """Return the response for an error, with more headers if given."""
    body = encode(form_of(path)(error, request_id))
    return Response(body, error.status, {**error.headers, **headers}, media_type="application/json")


def install(app: FastAPI, addresses: Collection[str]) -> None:
    """Let the application, which has these addresses, answer every exception in its dialect's form."""

    async def handle(request: Request, error: Exception) -> Response:
        told = api_error(error)
        if told.code == "context_length_exceeded":
            told.param = _PROMPTS.get(request.url.path, "messages")
        if told.code == "not_found" and (other := meant(request.url.path, addresses)) is not None:
            told.message += f"; {other} is one"
        return respond(told, request.url.path, request.scope.get("phi3_request_id", ""))

    for kind in (RequestValidationError, HTTPException, ApiError, Phi3Error, Exception):
        app.add_exception_handler(kind, handle)
