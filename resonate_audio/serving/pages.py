"""The static pages: studio and listening tests, with headers that let nothing in from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from string import Template

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.routing import Match

from resonate_audio.core.page import read_asset
from resonate_audio.serving.errors import ApiError

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]

STUDIO = Path(__file__).parent / "studio"
WAVE_STYLE = "'sha256-GDz2FZP0i7VZaDhs1mgc43IRUXU2xajPIjvThHvZvbs='"
"""The one style sheet that waveforms (56 pixels high) bring along in their script."""


@cache
def render_pages() -> dict[str, str]:
    """The HTML of each page by its path: one shell, in which a script shows what there is."""
    here = Path(__file__).parent
    fill = Template((here / "page.html").read_text("utf-8")).substitute
    bar = (here / "bar.html").read_text("utf-8")
    studio = fill(title="Resonate Studio", script="app.js", bar=bar, width="wide")
    listen = fill(title="Listening test", script="listen.js", bar="", width="narrow")
    return {"/": studio, "/index.html": studio, "/listen.html": listen}


def add_pages(app: FastAPI) -> None:
    """Serve the pages at ``/``; call this last, since they answer every path that is left."""
    for path, html in render_pages().items():
        app.add_route(path, _answer(html), methods=["GET"], include_in_schema=False)

    @app.get("/page.css", include_in_schema=False)
    def page_css() -> Response:
        return Response(read_asset("page.css"), media_type="text/css")

    app.mount("/", StaticFiles(directory=STUDIO), name="studio")


def _answer(html: str) -> Callable[[Request], HTMLResponse]:
    return lambda _: HTMLResponse(html)


def refuse_rest(app: FastAPI) -> None:
    """Answer what is left under ``/v1``, so that the pages do not take it for a file of theirs."""

    @app.api_route("/v1/{rest:path}", methods=METHODS, include_in_schema=False)
    def refuse(request: Request) -> None:
        own = request.scope.get("route")
        allowed = [
            method
            for method in METHODS
            for route in app.routes
            if route is not own
            and route.matches({**request.scope, "method": method})[0] is Match.FULL
            and getattr(route, "name", "") != "studio"
        ]
        if allowed:
            allow = {"Allow": ", ".join(dict.fromkeys(allowed))}
            raise ApiError(405, f"{request.method} is not what this address takes", headers=allow)
        raise ApiError(404, "there is nothing at this address")


@cache
def page_headers() -> dict[str, str]:
    """Content security policy and its like; every script and style is a file of ours."""
    policy = (
        "default-src 'none'; script-src 'self'; connect-src 'self' blob:; img-src 'self' data:; "
        f"media-src 'self' blob:; style-src 'self' {WAVE_STYLE}; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
