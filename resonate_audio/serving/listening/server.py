"""A server of one listening test: its raters' pages, and nothing else."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from resonate_audio.serving.errors import answer_errors
from resonate_audio.serving.listening.app import ListeningTests, answer_refusals, rater_router
from resonate_audio.serving.pages import add_pages, guard_pages

MAX_BODY_BYTES = 20_000


def create_listening_app(folder: Path) -> FastAPI:
    """An app for the raters of the test in ``folder``; its owner's routes are not there.

    Raises:
        ConfigError: the folder holds no test.
    """
    folder = folder.resolve()
    tests = ListeningTests(folder.parent, only=folder.name)
    tests.open(folder.name)
    app = FastAPI(
        title="Listening test",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        max_body_size=MAX_BODY_BYTES,
    )
    guard_pages(app)
    answer_errors(app)
    answer_refusals(app)

    @app.get("/", include_in_schema=False)
    def begin() -> RedirectResponse:
        return RedirectResponse(f"listen.html#{folder.name}")

    app.include_router(rater_router(tests))
    add_pages(app)
    return app
