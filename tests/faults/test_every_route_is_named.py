"""A route, a command or a variable that no table names fails here."""

from __future__ import annotations

from pathlib import Path

import pytest
from served import ROUTES

pytest.importorskip("uvicorn", reason='needs pip install "resonate-audio[serve]"')

from fastapi import FastAPI
from fastapi.routing import APIRoute
from listening_tests import make_test
from starlette.routing import Mount, Route

from resonate_audio.rewards.catalogue import open_reward
from resonate_audio.serving.app import create_app
from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.judge.app import create_judge_app
from resonate_audio.serving.listening.server import create_listening_app

PACKAGE = Path(__file__).parents[2] / "resonate_audio"


def named(server: str) -> set[tuple[str, str]]:
    return {(route.method, route.path) for route in ROUTES if route.server == server}


def routes_of(app: FastAPI) -> set[tuple[str, str]]:
    """Every route but the pages' folder and the one that refuses what is left."""
    found = set()
    for route in flat(app.routes):
        if isinstance(route, Mount) or route.path == "/v1/{rest:path}":
            continue
        assert isinstance(route, APIRoute | Route), route
        found |= {(method, route.path) for method in (route.methods or ()) if method != "HEAD"}
    return found


def flat(routes: object) -> list[object]:
    """Routes, those of included routers among them, whichever way FastAPI keeps them."""
    found: list[object] = []
    for route in routes:  # type: ignore[attr-defined]
        inner = getattr(route, "effective_routes", None) or getattr(route, "original_router", None)
        found += flat(inner.routes) if hasattr(inner, "routes") else [route]
    return found


def test_every_route_of_the_models_server_is_in_the_table(tmp_path: Path) -> None:
    assert routes_of(create_app(ServeConfig(home=tmp_path / "home"))) == named("sounds")


def test_every_route_of_a_judges_server_is_in_the_table(tmp_path: Path) -> None:
    judge = open_reward("level_judge:decibels", "cpu")
    app = create_judge_app(judge, "level", ServeConfig(home=tmp_path))
    assert routes_of(app) == named("judge")


def test_every_route_of_a_listening_test_is_in_the_table(tmp_path: Path) -> None:
    folder, _, _ = make_test(tmp_path)
    assert routes_of(create_listening_app(folder)) == named("raters")
