"""Raters and owners over HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listening_tests import make_test, rate_everything, tone

pytest.importorskip("fastapi", reason="needs the extra: pip install resonate-audio[serve]")

from fastapi import FastAPI
from starlette.testclient import TestClient

from resonate_audio.audio.io import FORMATS, encode_audio
from resonate_audio.core.types import Audio
from resonate_audio.serving.errors import answer_errors
from resonate_audio.serving.listening.app import (
    ListeningTests,
    answer_refusals,
    owner_router,
    rater_router,
)
from resonate_audio.serving.listening.server import create_listening_app
from resonate_audio.serving.listening.test import Design

HOSTILE = '<img src=x onerror="document.title=1">'


@pytest.fixture
def raters(tmp_path: Path) -> Iterator[TestClient]:
    folder, _, _ = make_test(tmp_path)
    with TestClient(create_listening_app(folder)) as client:
        yield client


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[TestClient]:
    app = FastAPI()
    answer_errors(app)
    answer_refusals(app)
    shelf = ListeningTests(tmp_path)
    app.include_router(rater_router(shelf))
    app.include_router(owner_router(shelf))
    with TestClient(app) as client:
        yield client


def join(client: TestClient) -> dict[str, str]:
    response = client.post("/v1/listening/tests/trees/raters")
    assert response.status_code == 201
    return {"X-Rater-Token": response.json()["token"]}


def wav(frequency_hz: float) -> bytes:
    return encode_audio(tone(frequency_hz), FORMATS[".wav"])


def upload(client: TestClient, **changes: Any) -> Any:
    files = [
        (f"system:{system}", (f"p{n}.wav", wav(200 + 100 * n), "audio/wav"))
        for system in ("alpha", "beta")
        for n in range(2)
    ]
    data = {
        "name": "trees",
        "design": json.dumps({"preset": "ab"}),
        "prompts": json.dumps({"p0": HOSTILE, "p1": "rain"}),
    } | {name: value for name, value in changes.items() if name != "files"}
    return client.post("/v1/listening/tests", data=data, files=[*files, *changes.get("files", [])])


def test_a_rater_walks_through_all_pages(raters: TestClient) -> None:
    token = join(raters)
    page = raters.get("/v1/listening/session", headers=token).json()
    pages = page["total"]
    for number in range(pages):
        assert page["trial"]["number"] == number
        sound = raters.get(f"/v1/listening/session/trials/{number}/clips/0", headers=token)
        assert sound.headers["content-type"] == "audio/wav"
        scores = {axis["name"]: 3 for axis in page["trial"]["axes"]}
        body = {"trial": number, "scores": scores, "ms": 3000}
        page = raters.post("/v1/listening/session/answers", json=body, headers=token).json()
    assert (page["trial"], page["done"]) == (None, pages)


def test_a_page_tells_neither_system_nor_file_and_the_text_only_when_it_is_asked_about(
    raters: TestClient,
) -> None:
    page = raters.get("/v1/listening/session", headers=join(raters)).json()
    assert page["trial"]["prompt"] is None
    assert "alpha" not in json.dumps(page)
    assert "p0" not in json.dumps(page)


@pytest.mark.parametrize("token", ["", "trees", "trees.guess", "other.guess", "../trees.x"])
def test_who_has_no_token_sees_nothing(raters: TestClient, token: str) -> None:
    response = raters.get("/v1/listening/session", headers={"X-Rater-Token": token})
    assert (response.status_code, response.json()["error"]["param"]) == (401, "token")


def test_a_rater_does_not_see_another(raters: TestClient) -> None:
    first, second = join(raters), join(raters)
    raters.get("/v1/listening/session/trials/0/clips/0", headers=first)
    body = {"trial": 0, "scores": {"OVL": 3}, "ms": 3000}
    assert raters.post("/v1/listening/session/answers", json=body, headers=first).is_success
    assert raters.get("/v1/listening/session", headers=second).json()["done"] == 0


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"scores": {"OVL": 9}}, 422, "scores.OVL"),
        ({"scores": {}}, 422, "scores.OVL"),
        ({"scores": 3}, 422, "scores"),
        ({"trial": 99}, 422, "trial"),
        ({"trial": -1}, 422, "trial"),
        ({"trial": 1}, 409, "trial"),
        ({"ms": "soon"}, 422, "ms"),
        ({"ms": "3000"}, 422, "ms"),
        ({"trial": False}, 422, "trial"),
        ({"choice": "A"}, 422, "choice"),
        ({"rater": "r-1"}, 422, "rater"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(
    raters: TestClient, change: dict[str, Any], status: int, field: str
) -> None:
    token = join(raters)
    raters.get("/v1/listening/session/trials/0/clips/0", headers=token)
    body = {"trial": 0, "scores": {"OVL": 3}, "ms": 3000} | change
    response = raters.post("/v1/listening/session/answers", json=body, headers=token)
    assert (response.status_code, response.json()["error"]["param"]) == (status, field)


def test_a_second_answer_to_a_page_is_a_conflict(raters: TestClient) -> None:
    token = join(raters)
    raters.get("/v1/listening/session/trials/0/clips/0", headers=token)
    body = {"trial": 0, "scores": {"OVL": 3}, "ms": 3000}
    answers = [
        raters.post("/v1/listening/session/answers", json=body, headers=token) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 409]
    assert answers[1].json()["error"]["message"] == "trial: 0 is answered already"


def test_the_raters_server_has_no_results(raters: TestClient) -> None:
    assert raters.get("/v1/listening/tests").status_code == 404
    assert raters.get("/v1/listening/tests/trees/results").status_code in (404, 405)


@pytest.mark.parametrize("path", ["/../test.yaml", "/%2e%2e/test.yaml", "/js/../../pages.py"])
def test_no_file_beside_the_pages_is_served(raters: TestClient, path: str) -> None:
    assert raters.get(path).status_code == 404


def test_pages_let_nothing_in_from_elsewhere(raters: TestClient) -> None:
    policy = raters.get("/listen.html").headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "unsafe" not in policy


def test_a_test_by_invitation_takes_in_nobody_else(tmp_path: Path) -> None:
    folder, _, answers = make_test(tmp_path, Design(is_open=False))
    token = f"trees.{answers.join()}"
    with TestClient(create_listening_app(folder)) as client:
        refused = client.post("/v1/listening/tests/trees/raters")
        assert (refused.status_code, refused.json()["error"]["param"]) == (403, "rater")
        session = client.get("/v1/listening/session", headers={"X-Rater-Token": token})
        assert session.is_success


def test_an_owner_makes_a_test_and_reads_what_came_of_it(owner: TestClient, tmp_path: Path) -> None:
    made = upload(owner).json()
    assert (made["name"], made["systems"], made["num_clips"]) == ("trees", ["alpha", "beta"], 4)
    assert owner.get("/v1/listening/tests").json()["data"] == [made]
    _, answers = ListeningTests(tmp_path).open("trees")
    rate_everything(answers, answers.join(), {"alpha": 2, "beta": 1})
    results = owner.get("/v1/listening/tests/trees/results").json()
    assert [score["value"] for score in results["axes"][0]["scores"]] == [1.0, 0.0]
    for file in ("ratings.csv", "clips.jsonl", "results.tex", "pairs.zip"):
        response = owner.get(f"/v1/listening/tests/trees/files/{file}")
        assert response.is_success
        assert response.headers["content-disposition"] == f'attachment; filename="trees-{file}"'


def test_an_owner_invites(owner: TestClient) -> None:
    upload(owner)
    tokens = owner.post("/v1/listening/tests/trees/invitations", json={"count": 3}).json()["tokens"]
    assert len(set(tokens)) == 3
    for token in tokens:
        assert owner.get("/v1/listening/session", headers={"X-Rater-Token": token}).is_success


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "../up"}, "name"),
        ({"name": ""}, "name"),
        ({"design": "{"}, "design"),
        ({"prompts": "[]"}, "prompts"),
        ({"files": [("system:", ("a.wav", b"x", "audio/wav"))]}, "system:"),
        ({"files": [("sound", ("a.wav", b"x", "audio/wav"))]}, "sound"),
        ({"desgin": "{}"}, "desgin"),
        ({"name": ["trees", "bees"]}, "name"),
    ],
)
def test_what_is_wrong_with_a_new_test_is_named(
    owner: TestClient, changes: dict[str, Any], field: str
) -> None:
    response = upload(owner, **changes)
    assert (response.status_code, response.json()["error"]["param"]) == (422, field)


def test_there_are_no_results_of_what_is_not_there(owner: TestClient) -> None:
    for path in ("results", "files/ratings.csv"):
        assert owner.get(f"/v1/listening/tests/nothing/{path}").status_code == 404


def test_a_body_without_end_is_refused(raters: TestClient) -> None:
    token = join(raters) | {"Content-Type": "application/json"}
    body = b'{"trial": 0, "choice": "' + b"A" * 100_000 + b'"}'
    response = raters.post("/v1/listening/session/answers", content=body, headers=token)
    assert response.status_code == 413


def test_a_small_file_that_is_long_is_refused_before_it_is_decoded(owner: TestClient) -> None:
    silence = Audio(np.zeros(8000 * 130, np.float32), 8000)
    long = encode_audio(silence, FORMATS[".flac"])
    assert len(long) < 100_000
    response = upload(owner, files=[("system:alpha", ("long.flac", long, "audio/flac"))])
    assert (response.status_code, response.json()["error"]["param"]) == (422, "long")


@pytest.mark.parametrize("data", [b"", b"no sound", b"RIFF"])
def test_an_upload_that_is_no_sound_is_named(owner: TestClient, data: bytes) -> None:
    response = upload(owner, files=[("system:alpha", ("x.wav", data, "audio/wav"))])
    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith("x: not an audio file")


def test_more_invitations_than_places_take_none(owner: TestClient) -> None:
    upload(owner)
    refused = owner.post("/v1/listening/tests/trees/invitations", json={"count": 201})
    assert (refused.status_code, refused.json()["error"]["param"]) == (403, "count")
    [test] = owner.get("/v1/listening/tests").json()["data"]
    assert test["num_raters"] == 0


def test_a_test_that_was_removed_and_made_anew_is_another_one(
    owner: TestClient, tmp_path: Path
) -> None:
    upload(owner)
    before = join(owner)
    shutil.rmtree(tmp_path / "trees")
    assert upload(owner).status_code == 201
    assert owner.get("/v1/listening/session", headers=before).status_code == 401
    assert owner.get("/v1/listening/session", headers=join(owner)).is_success


def test_of_several_who_make_a_test_of_one_name_one_does(owner: TestClient) -> None:
    with ThreadPoolExecutor(4) as people:
        made = [people.submit(upload, owner) for _ in range(4)]
    assert sorted(one.result().status_code for one in made) == [201, 409, 409, 409]
