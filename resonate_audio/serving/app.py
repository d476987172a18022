"""The server as one app: API, studio, listening tests, behind one guard."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute

from resonate_audio.core.text import suggest, visible
from resonate_audio.model.folder import own_version
from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.errors import ApiError, answer_errors
from resonate_audio.serving.guard import Guard
from resonate_audio.serving.listening.app import (
    ListeningTests,
    answer_refusals,
    owner_router,
    rater_router,
)
from resonate_audio.serving.pages import add_pages, page_headers, refuse_rest
from resonate_audio.serving.runs_app import runs_router
from resonate_audio.serving.sounds.library import library_router
from resonate_audio.serving.sounds.routes import audio_router, jobs_router, models_router
from resonate_audio.serving.sounds.service import Service

EXPOSED = ["X-Resonate-Seed", "X-Resonate-Model", "X-Resonate-Duration", "X-Resonate-Sample-Rate",
           "X-Resonate-Peak", "X-Resonate-Prompt-Cut", "X-Resonate-Negative-Idle",
           "X-Resonate-Influence-Idle", "X-Request-ID",
           "Retry-After", "Accept-Ranges", "Content-Range", "ETag"]  # fmt: skip


def create_app(config: ServeConfig) -> FastAPI:
    """The whole server.

    Args:
        config: models, limits, key, folders.

    Raises:
        ResonateError: a model is not there, broken, or larger than the memory budget.
    """
    service = Service(config)
    app = FastAPI(
        title="Resonate Audio",
        description="Text in, sound out.",
        version=own_version(),
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(service),
        dependencies=[Depends(refuse_unknown_query)],
    )
    app.state.service = service
    answer_errors(app)
    answer_refusals(app)
    for make_router in (audio_router, jobs_router, library_router, models_router):
        app.include_router(make_router(service))
    tests = ListeningTests(config.home / "listening")
    app.include_router(rater_router(tests))
    app.include_router(owner_router(tests))
    app.include_router(runs_router(config.runs))
    refuse_rest(app)
    add_pages(app)
    app.add_middleware(Guard, config=config, metrics=service.metrics, headers=page_headers())
    if config.cors_origins:  # around the guard: pages elsewhere read its refusals, too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    return app


def refuse_unknown_query(request: Request) -> None:
    """Refuse a parameter of the address that its route does not take.

    Raises:
        ApiError: names it and what there is.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or not route.path.startswith("/v1/"):
        return
    known = [parameter.alias for parameter in route.dependant.query_params]
    for name in request.query_params:
        if name not in known:
            message = f"{visible(name, 100)}: unknown in the address; {suggest(name, known)}"
            raise ApiError(422, message, name)


def _lifespan(service: Service) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.stop()

    return lifespan


def openapi_text() -> str:
    """The description of the API as `docs/openapi.json` holds it."""
    app = create_app(ServeConfig(home=Path("home")))
    return json.dumps(app.openapi(), indent=2, sort_keys=True) + "\n"
