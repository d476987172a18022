"""What the studio's pages ask for, over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra: pip install resonate-audio[serve]")

from starlette.testclient import TestClient
from test_runs import write_run

from resonate_audio.audio.io import decode_audio
from resonate_audio.core.errors import InputError, ModelNotFoundError
from resonate_audio.serving.studio_app import create_studio_app
from resonate_audio.serving.studio_jobs import MAX_WAITING, Studio
from resonate_audio.serving.studio_library import Library

HERE = "http://127.0.0.1"
WANTED = {"input": "rain", "audio_length": 1.0, "num_inference_steps": 2, "seeds": [7]}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    home = tmp_path_factory.mktemp("studio")
    write_run(home / "runs" / "dpo")
    studio = Studio(["nano"], Library(home), device="cpu")
    app = create_studio_app(studio, home / "tests", home / "runs")
    with TestClient(app, base_url=HERE) as found:
        yield found


def wait(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    for _ in range(600):
        found = client.get(f"/v1/jobs/{job['id']}").json()
        if found["status"] not in ("queued", "running"):
            return found
        time.sleep(0.05)
    raise AssertionError("the job did not end")


def test_models_tell_which_lengths_they_make(client: TestClient) -> None:
    [nano] = client.get("/v1/models").json()["data"]
    assert nano["id"] == "nano"
    assert nano["min_duration_s"] <= nano["default_duration_s"] <= nano["max_duration_s"]


def test_a_job_makes_one_sound_a_seed_and_they_are_in_the_library(client: TestClient) -> None:
    posted = client.post("/v1/jobs", json=WANTED | {"seeds": [7, 8]})
    assert posted.status_code == 202
    done = wait(client, posted.json())
    assert (done["status"], [sound["seed"] for sound in done["sounds"]]) == ("succeeded", [7, 8])
    for sound in done["sounds"]:
        response = client.get(f"/v1/library/{sound['id']}/audio")
        audio = decode_audio(response.content, "answer")
        assert audio.duration_s == 1.0
        assert audio.recipe is not None
        assert audio.recipe.seed == sound["seed"]
    listed = client.get("/v1/library", params={"q": "rain"}).json()["data"]
    assert {sound["id"] for sound in done["sounds"]} <= {sound["id"] for sound in listed}


def test_events_end_with_the_job(client: TestClient) -> None:
    job = client.post("/v1/jobs", json=WANTED).json()
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as response:
        lines = [line for line in response.iter_lines() if line]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert json.loads(lines[-1].removeprefix("data: ")) == {
        "status": "succeeded",
        "step": 2,
        "total_steps": 2,
    }


def test_a_cancelled_job_makes_nothing(client: TestClient) -> None:
    job = client.post("/v1/jobs", json=WANTED | {"num_inference_steps": 200}).json()
    client.delete(f"/v1/jobs/{job['id']}")
    done = wait(client, job)
    assert (done["status"], done["sounds"]) == ("cancelled", [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input": ""}, "input"),
        ({"input": "x" * 2001}, "input"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"seeds": list(range(17))}, "seeds"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"guidance_scale": -1}, "guidance_scale"),
        ({"audio_length": 1e9}, "duration of 1000000000.0 s"),
        ({"model": "../etc"}, "model '../etc': expected nano"),
        ({"loudness": 3}, "loudness"),
    ],
)
def test_what_cannot_be_made_is_named(
    client: TestClient, change: dict[str, Any], words: str
) -> None:
    response = client.post("/v1/jobs", json=WANTED | change)
    assert response.status_code == 422
    assert words in response.json()["error"]["message"]


def test_broken_json_is_a_mistake_of_the_caller(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    assert client.post("/v1/jobs", content=b"{", headers=headers).status_code == 422


def test_a_full_queue_says_when_to_come_back(client: TestClient) -> None:
    slow = WANTED | {"num_inference_steps": 200}
    answers = [client.post("/v1/jobs", json=slow) for _ in range(MAX_WAITING + 2)]
    full = [answer for answer in answers if answer.status_code == 429]
    assert full
    assert full[0].headers["retry-after"] == "5"
    taken = [answer.json() for answer in answers if answer.status_code == 202]
    for job in taken:
        client.delete(f"/v1/jobs/{job['id']}")
    assert {wait(client, job)["status"] for job in taken} == {"cancelled"}


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs/none", "/v1/jobs/none/events", "/v1/library/none/audio", "/v1/runs/none"],
)
def test_what_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_runs_and_their_takes_are_served(client: TestClient) -> None:
    [head] = client.get("/v1/runs").json()["data"]
    run = client.get(f"/v1/runs/{head['id']}").json()
    assert run["facts"]["model"] == "nano"
    assert client.get(f"/v1/runs/{head['id']}/takes/0").is_success
    assert client.get(f"/v1/runs/{head['id']}/takes/1").status_code == 404


def test_pages_of_other_addresses_are_refused(client: TestClient) -> None:
    elsewhere = client.post("/v1/jobs", json=WANTED, headers={"Origin": "http://evil.example"})
    renamed = client.get("/v1/models", headers={"Host": "evil.example"})
    assert (elsewhere.status_code, renamed.status_code) == (403, 403)


def test_a_server_with_a_key_asks_for_it_and_raters_need_none(tmp_path: Path) -> None:
    studio = Studio(["nano"], Library(tmp_path))
    app = create_studio_app(studio, tmp_path / "tests", key="open sesame")
    with TestClient(app, base_url="http://studio.example") as client:
        assert client.get("/v1/models").status_code == 401
        wrong = {"Authorization": "Bearer open"}
        assert client.get("/v1/models", headers=wrong).status_code == 401
        right = {"Authorization": "Bearer open sesame"}
        assert client.get("/v1/models", headers=right).is_success
        assert client.get("/").is_success
        rater = client.get("/v1/listening/session", headers={"X-Rater-Token": "a.b"})
        assert rater.json()["error"]["param"] == "token"


def test_models_that_are_not_there_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        Studio(["nono"], Library(tmp_path))
    with pytest.raises(InputError, match="each once"):
        Studio(["nano", "nano"], Library(tmp_path))
