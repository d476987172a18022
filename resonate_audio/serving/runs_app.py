"""Training runs over HTTP, read only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from resonate_audio.core.errors import InputError
from resonate_audio.serving.errors import ApiError, StrictRoute
from resonate_audio.serving.ranges import MEDIA_TYPES, send_sound
from resonate_audio.serving.runs import list_runs, open_run, take_file


def runs_router(root: Path | None) -> APIRouter:
    """Runs under a folder; without one the list is empty and says so."""
    router = APIRouter(route_class=StrictRoute, prefix="/v1/runs", tags=["runs"])

    @router.get("")
    def index() -> dict[str, Any]:
        """All runs, the one that wrote last first."""
        found = [] if root is None else list_runs(root)
        return {"is_given": root is not None, "data": [head.model_dump() for head in found]}

    @router.get("/{id}")
    def show(id: str) -> Response:
        """One run: facts, warnings, numbers by step, kept takes."""
        try:
            run = open_run(_given(root), id)
        except InputError as error:
            raise ApiError(404, "run: there is no such run", "run") from error
        return Response(run.model_dump_json(), media_type="application/json")

    @router.get("/{id}/takes/{take}", response_class=Response)
    def hear(request: Request, id: str, take: str) -> Response:
        """The sound of a kept take, by the id that the run's list gives it."""
        try:
            path = take_file(_given(root), id, take)
        except InputError as error:
            raise ApiError(404, "take: there is no such sound", "take") from error
        return send_sound(request, path, MEDIA_TYPES[path.suffix.lower().removeprefix(".")])

    return router


def _given(root: Path | None) -> Path:
    if root is None:
        raise InputError("no folder of runs was given")
    return root
