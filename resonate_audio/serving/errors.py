"""Mistakes of clients as HTTP answers, in the form that OpenAI's clients read."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any, get_args

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from resonate_audio.core.documents.json_text import parse_body
from resonate_audio.core.errors import (
    AudioError,
    DiskFullError,
    InputError,
    OutputError,
    ResonateError,
)
from resonate_audio.core.files import NO_ROOM
from resonate_audio.core.text import one_line, shortened, suggest, visible
from resonate_audio.serving.database import DamagedError

log = logging.getLogger("resonate.serve")
SHOWN_CHARACTERS = 200
"""How much of a client's own words is repeated to it."""
KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error",
         429: "rate_limit_error"}  # fmt: skip
DISK_FULL = (
    "the disk of this server is full and nothing was kept; make room there, or by "
    "DELETE /v1/library/ID, and try again"
)
NO_BODY = "There was an error parsing the body"
"""What FastAPI says of a body that is no JSON in a way that Python tells by other errors."""
BODY_EXPECTED = (
    "body: cannot be read; expected JSON in UTF-8 whose numbers have at most 4300 digits and "
    "whose lists are nested less than a thousand times"
)
UNREADABLE = "what the server keeps of it cannot be read; the server's log says why"
_PATH = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\:'\"]+)*[/\\](?=[^\s/\\:'\"]+)")
"""The folders of an absolute path, up to its last name."""


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
    """The envelope of one refusal: one line of words that can be shown anywhere."""
    kind = KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    param = None if error.param is None else visible(error.param, SHOWN_CHARACTERS)
    body = ErrorBody(message=one_line(str(error)), type=kind, param=param, code=error.code)
    return JSONResponse({"error": body.model_dump()}, error.status, error.headers)


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of any error: its own mistakes in full, of ours no path of the server.

    What lies on the server is the owner's to mend, who finds it in the log.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, DiskFullError) or getattr(error, "errno", None) in NO_ROOM:
        log.error("%s", one_line(str(error)))
        return ApiError(507, DISK_FULL, code="disk_full")
    if isinstance(error, InputError | AudioError):
        return ApiError(422, without_folders(one_line(str(error))))
    if isinstance(error, OutputError) and not isinstance(error, DamagedError):
        log.error("%s", one_line(str(error)))
        return ApiError(507, "the server cannot write; its log says why", code="not_kept")
    if isinstance(error, ResonateError):
        log.error("%s", one_line(str(error)))
        return ApiError(409, UNREADABLE, code="unreadable")
    return ApiError(500, "the server failed; its log says why")


def without_folders(text: str) -> str:
    """Paths in a text as the names at their ends."""
    return _PATH.sub("", text)


def describe_invalid(problems: Sequence[Any], request: Request) -> ApiError:
    """Name the field that pydantic refused in the body, the address or a header of a request."""
    first = _first(problems)
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON ({first['ctx']['error']})", "body")
    if len(first["loc"]) < 2 and not is_json(request):
        return wants_type(request, "application/json")
    return describe_fields(problems, _known_fields(request))


def _first(problems: Sequence[Any]) -> Any:
    """The one that is told: a field that is not known first, since it may be a typo."""
    return next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])


def describe_fields(problems: Sequence[Any], known: Sequence[str]) -> ApiError:
    """Name the field that pydantic refused.

    Args:
        problems: as pydantic has them, each with the place of its field before its name.
        known: fields that there are.
    """
    first = _first(problems)
    name = ".".join(str(part) for part in first["loc"][1:]) or "body"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        message = f"unknown field; {suggest(str(first['loc'][-1]), known)}"
    elif first["type"] in ("model_attributes_type", "dict_type"):
        message = "expected a JSON object"
    else:
        message = first["msg"].removeprefix("Value error, ")
    shown = visible(name, SHOWN_CHARACTERS)
    return ApiError(422, f"{shown}: {shortened(message, 300)}{more}", name)


def is_json(request: Request) -> bool:
    """Whether the body is said to be JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def wants_type(request: Request, wanted: str) -> ApiError:
    """The body comes as something else, or as nothing in particular."""
    given = request.headers.get("content-type", "")
    said = f"it is {shortened(given, 60)}" if given else "there is none"
    message = f"Content-Type: {said}; send the header Content-Type: {wanted}"
    return ApiError(422, message, "Content-Type", "content_type")


def _known_fields(request: Request) -> list[str]:
    """The fields of the body that the route takes, as clients call them."""
    endpoint = getattr(request.scope.get("route"), "endpoint", None)
    if endpoint is None:
        return []
    for parameter in inspect.signature(endpoint, eval_str=True).parameters.values():
        for kind in (parameter.annotation, *get_args(parameter.annotation)):
            if inspect.isclass(kind) and issubclass(kind, BaseModel):
                return field_names(kind)
    return []


def field_names(cls: type[BaseModel]) -> list[str]:
    """The fields of a model as clients call them."""
    return [field.alias or name for name, field in cls.model_fields.items()]


def describe_status(status: int, headers: Mapping[str, str]) -> ApiError:
    """The refusal of a library, which says only a number, in words."""
    words = {
        404: "there is nothing at this address",
        413: "body: too large",
        416: f"range: outside of {headers.get('content-range', 'the file')}",
    }
    try:
        phrase = HTTPStatus(status).phrase.lower()
    except ValueError:
        phrase = "refused"
    kept = {n: v for n, v in headers.items() if n in ("allow", "content-range", "retry-after")}
    return ApiError(status, words.get(status, phrase), headers=kept)


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body; a field that it holds twice is told as what is no JSON."""
        return parse_body(await self.body())


class StrictRoute(APIRoute):
    """A route that refuses a JSON body in which a field stands twice: which one is meant?"""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own, given a request that reads so."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive, request._send))

        return strictly


def answer_errors(app: FastAPI) -> None:
    """Turn every mistake into its envelope; what we did wrong is logged with its cause.

    Routers of their own take `StrictRoute` by themselves.
    """
    app.router.route_class = StrictRoute

    @app.exception_handler(ResonateError)
    def refuse(request: Request, error: ResonateError) -> JSONResponse:
        return error_response(as_api_error(error))

    @app.exception_handler(RequestValidationError)
    def refuse_field(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(describe_invalid(error.errors(), request))

    @app.exception_handler(HTTPException)
    def refuse_route(request: Request, error: HTTPException) -> JSONResponse:
        if error.detail == NO_BODY:
            return error_response(ApiError(400, BODY_EXPECTED, "body"))
        told = ApiError(error.status_code, str(error.detail), headers=error.headers)
        return error_response(told)

    @app.exception_handler(OSError)
    def refuse_disk(request: Request, error: OSError) -> JSONResponse:
        told = as_api_error(error)
        if told.status == 500:
            log.error("%s failed", visible(request.url.path), exc_info=error)
        return error_response(told)

    @app.exception_handler(Exception)
    def report(request: Request, error: Exception) -> JSONResponse:
        log.error("%s failed", visible(request.url.path), exc_info=error)
        return error_response(as_api_error(error))
