"""A server of one listening test: its raters' pages, and nothing else."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from resonate_audio.serving.config import EdgeConfig
from resonate_audio.serving.errors import answer_errors
from resonate_audio.serving.guard import Guard
from resonate_audio.serving.listening.app import ListeningTests, answer_refusals, rater_router
from resonate_audio.serving.metrics import Metrics
from resonate_audio.serving.pages import add_pages, page_headers, refuse_rest

MAX_BODY_MB = 0.02


def create_listening_app(folder: Path, config: EdgeConfig | None = None) -> FastAPI:
    """An app for the raters of the test in ``folder``; its owner's routes are not there.

    Args:
        folder: of the test.
        config: names that requests may call the server by, limits; by default any name.

    Raises:
        ConfigError: the folder holds no test.
    """
    folder = folder.resolve()
    tests = ListeningTests(folder.parent, only=folder.name)
    tests.open(folder.name)
    app = FastAPI(title="Listening test", docs_url=None, redoc_url=None, openapi_url=None)
    answer_errors(app)
    answer_refusals(app)

    @app.get("/", include_in_schema=False)
    def begin() -> RedirectResponse:
        return RedirectResponse(f"listen.html#{folder.name}")

    @app.get("/health")
    @app.get("/ready")
    def health() -> dict[str, str]:
        """200 while the server runs: nothing has to be loaded."""
        return {"status": "ok"}

    app.include_router(rater_router(tests))
    refuse_rest(app)
    add_pages(app)
    app.add_middleware(
        Guard,
        config=config or EdgeConfig(hosts=(), max_body_mb=MAX_BODY_MB),
        metrics=Metrics(),
        headers=page_headers(),
    )
    return app
