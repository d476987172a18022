"""Mistakes of clients as HTTP answers, in the form that OpenAI's clients read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from resonate_audio.core.errors import ResonateError

log = logging.getLogger("resonate.serve")
SHOWN_CHARACTERS = 200
"""How much of a client's own words is repeated to it."""
KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error",
         429: "rate_limit_error"}  # fmt: skip


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    """The field that is wrong, where it is one."""
    code: str | None


class ErrorEnvelope(BaseModel):
    """Every answer that is not a success."""

    error: ErrorBody


class ApiError(ResonateError):
    """A request is refused, and why."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = dict(headers or {})


def error_response(error: ApiError) -> JSONResponse:
    """The envelope of one refusal."""
    kind = KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    body = ErrorBody(message=str(error), type=kind, param=error.param, code=error.code)
    return JSONResponse({"error": body.model_dump()}, error.status, error.headers)


def describe_invalid(problems: Any) -> ApiError:
    """Name the first field that pydantic refused."""
    first = problems[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON ({first['ctx']['error']})", "body")
    name = ".".join(str(part) for part in first["loc"][1:])[:SHOWN_CHARACTERS] or "body"
    message = first["msg"].removeprefix("Value error, ")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ApiError(422, f"{name}: {message}{more}", name)


def answer_errors(app: FastAPI) -> None:
    """Turn every mistake into its envelope; what we did wrong is logged with its cause."""

    @app.exception_handler(ApiError)
    def refuse(request: Request, error: ApiError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(ResonateError)
    def refuse_value(request: Request, error: ResonateError) -> JSONResponse:
        return error_response(ApiError(422, " ".join(str(error).split())))

    @app.exception_handler(RequestValidationError)
    def refuse_field(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(describe_invalid(error.errors()))

    @app.exception_handler(HTTPException)
    def refuse_route(request: Request, error: HTTPException) -> JSONResponse:
        told = ApiError(error.status_code, str(error.detail), headers=error.headers)
        return error_response(told)

    @app.exception_handler(Exception)
    def report(request: Request, error: Exception) -> JSONResponse:
        log.error("%s failed", request.url.path, exc_info=error)
        return error_response(ApiError(500, "the server failed; its log says why"))
