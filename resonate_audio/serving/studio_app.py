"""The studio over HTTP: its pages, and what they ask for."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.middleware.base import RequestResponseEndpoint

from resonate_audio.core.errors import InputError, ResonateError
from resonate_audio.serving.listening_answers import AnswerError
from resonate_audio.serving.listening_app import (
    ListeningTests,
    answer_refusals,
    owner_router,
    rater_router,
)
from resonate_audio.serving.pages import add_pages, guard_pages
from resonate_audio.serving.runs_app import runs_router
from resonate_audio.serving.studio_jobs import Job, QueueFull, Studio, Wanted

POLL_S = 0.1
LOCAL = ("127.0.0.1", "localhost", "::1")
FOR_RATERS = re.compile(r"/v1/listening/(session(/.*)?|tests/[^/]+|tests/[^/]+/raters)")
"""Paths that ask for a rater's token, or for nothing, instead of the key."""


def create_studio_app(
    studio: Studio, tests: Path, runs: Path | None = None, key: str | None = None
) -> FastAPI:
    """The app of the studio.

    Args:
        studio: models, queue and library; it is started and closed with the app.
        tests: folder of the listening tests.
        runs: folder of training runs, if any are to be seen.
        key: what clients must send as bearer token; without one, only this machine is served.
    """

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        studio.start()
        yield
        await asyncio.to_thread(studio.close)

    app = FastAPI(title="Resonate Studio", docs_url=None, redoc_url=None, lifespan=live)
    guard_key(app, key)
    guard_pages(app)
    answer_refusals(app)
    answer_errors(app)
    shelf = ListeningTests(tests)
    routers = (
        jobs_router(studio),
        library_router(studio),
        runs_router(runs),
        rater_router(shelf),
        owner_router(shelf),
    )
    for router in routers:
        app.include_router(router)
    add_pages(app)
    return app


def jobs_router(studio: Studio) -> APIRouter:
    """Models and jobs."""
    router = APIRouter(prefix="/v1", tags=["jobs"])

    @router.get("/models")
    def models() -> dict[str, Any]:
        """Models and the lengths that they make."""
        listed = [
            {
                "id": name,
                "object": "model",
                "sample_rate_hz": config.mel.sample_rate_hz,
                "min_duration_s": config.min_duration_s,
                "max_duration_s": config.max_duration_s,
                "default_duration_s": config.default_duration_s,
            }
            for name, config in studio.configs.items()
        ]
        return {"object": "list", "data": listed}

    @router.post("/jobs", status_code=202)
    def submit(wanted: Wanted) -> dict[str, Any]:
        """Take in a job."""
        return describe_job(studio.submit(wanted))

    @router.get("/jobs/{id}")
    def show(id: str) -> dict[str, Any]:
        """How far a job is, and what it made."""
        return describe_job(find_job(studio, id))

    @router.delete("/jobs/{id}")
    def cancel(id: str) -> dict[str, Any]:
        """Stop a job; it ends within a step."""
        job = find_job(studio, id)
        job.stop.set()
        return describe_job(job)

    @router.get("/jobs/{id}/events")
    def events(id: str) -> StreamingResponse:
        """How far a job is, as it goes on."""
        stream = follow(find_job(studio, id))
        return StreamingResponse(stream, media_type="text/event-stream")

    return router


async def follow(job: Job) -> AsyncIterator[str]:
    """Server-sent events: one for each change, the last one when the job is over."""
    told = ""
    while True:
        is_over = job.is_over
        text = json.dumps(
            {key: describe_job(job)[key] for key in ("status", "step", "total_steps")}
        )
        if text != told:
            yield f"data: {text}\n\n"
        if is_over:
            return
        told = text
        await asyncio.sleep(POLL_S)


def find_job(studio: Studio, id: str) -> Job:
    """A job by its id.

    Raises:
        AnswerError: there is none.
    """
    try:
        return studio.job(id)
    except InputError as error:
        raise AnswerError(404, "job", str(error)) from error


def describe_job(job: Job) -> dict[str, Any]:
    """A job as clients see it."""
    return {
        "id": job.id,
        "status": job.state,
        "step": job.step,
        "total_steps": job.total_steps,
        "error": {"message": job.error} if job.error else None,
        "sounds": [sound.model_dump() for sound in job.sounds],
    }


def library_router(studio: Studio) -> APIRouter:
    """Sounds that were made."""
    router = APIRouter(prefix="/v1/library", tags=["library"])

    @router.get("")
    def search(
        q: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    ) -> dict[str, Any]:
        """Sounds whose prompt or model has the words, or that have that seed; newest first."""
        total, sounds = studio.library.search(q, limit, offset)
        return {"total": total, "data": [sound.model_dump() for sound in sounds]}

    @router.get("/{id}/audio")
    def hear(id: str) -> FileResponse:
        """The WAV file of a sound."""
        try:
            return FileResponse(studio.library.file(id), media_type="audio/wav")
        except InputError as error:
            raise AnswerError(404, "sound", str(error)) from error

    @router.delete("/{id}", status_code=204)
    def remove(id: str) -> None:
        """Delete a sound."""
        try:
            studio.library.remove(id)
        except InputError as error:
            raise AnswerError(404, "sound", str(error)) from error

    return router


def guard_key(app: FastAPI, key: str | None) -> None:
    """Let in who has the key; without a key, only pages of this machine that are our own."""

    @app.middleware("http")
    async def check(request: Request, call_next: RequestResponseEndpoint) -> Response:
        host = urlsplit(f"//{request.headers.get('host', '')}")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host.netloc:
            return _error(403, "origin", "requests from pages of other addresses are refused")
        if key is None and host.hostname not in LOCAL:
            return _error(403, "host", "this server answers to this machine only")
        if key is not None and _needs_key(request.url.path) and not _has_key(request, key):
            return _error(401, "key", "expected the header Authorization: Bearer KEY")
        return await call_next(request)


def _needs_key(path: str) -> bool:
    return path.startswith("/v1/") and not FOR_RATERS.fullmatch(path)


def _has_key(request: Request, key: str) -> bool:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    return secrets.compare_digest(given.encode(), key.encode())


def answer_errors(app: FastAPI) -> None:
    """Make mistakes of the caller responses that name the field."""

    @app.exception_handler(RequestValidationError)
    def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return _error(422, name, f"{name}: {first['msg']}")

    @app.exception_handler(QueueFull)
    def wait(request: Request, error: QueueFull) -> JSONResponse:
        response = _error(429, "jobs", str(error))
        response.headers["Retry-After"] = "5"
        return response

    @app.exception_handler(ResonateError)
    def explain(request: Request, error: ResonateError) -> JSONResponse:
        return _error(422, None, str(error))


def _error(status: int, field: str | None, message: str) -> JSONResponse:
    kind = "authentication_error" if status == 401 else "invalid_request_error"
    body = {"message": message, "type": kind, "param": field, "code": None}
    return JSONResponse({"error": body}, status)
