"""Jobs: told of step by step, cancelled within a step, kept through restarts and kills."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from running import Running, error_of

from resonate_audio.audio.io import decode_audio
from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.sounds.requests import JobRequest
from resonate_audio.serving.sounds.service import MAX_STARTS, JobView, Service
from resonate_audio.serving.sounds.store import Store, new_id

pytest.importorskip("uvicorn", reason='needs pip install "resonate-audio[serve]"')
LONG = {"num_inference_steps": 25, "audio_length": 10.0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("jobs") / "home", "--set", "max_queued_rows=40") as one:
        yield one


def events_of(server: Running, id: str) -> list[dict[str, Any]]:
    with server.client.stream("GET", f"/v1/jobs/{id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = list(answer.iter_lines())
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def wait_until_begun(server: Running, id: str) -> None:
    until_s = time.monotonic() + 30
    while server.client.get(f"/v1/jobs/{id}").json()["step"] < 1:
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_a_job_tells_every_step_and_then_its_end(server: Running) -> None:
    job = server.add_job(num_inference_steps=20)
    told = events_of(server, job["id"])
    running = [event["step"] for event in told if event["status"] == "running"]
    assert running == sorted(running)
    assert {event["step"] for event in told} == set(range(21))
    assert told[-1] == {"status": "succeeded", "step": 20, "total_steps": 20, "error": None}


def test_a_jobs_sounds_lie_in_the_library_with_all_their_settings(server: Running) -> None:
    job = server.wait_for(server.add_job(input="A cat purrs", seeds=[4, 9])["id"])
    first, second = job["sounds"]
    assert (first["prompt"], first["seed"], second["seed"]) == ("A cat purrs", 4, 9)
    heard = server.client.get(f"/v1/library/{second['id']}/audio")
    assert heard.content == server.generate(input="A cat purrs", seed=9).content
    found = server.client.get("/v1/library", params={"q": "CAT seed 9"}).json()
    assert found["total"] == 1
    assert found["data"] == [second]


def test_a_kept_sound_comes_in_any_format_and_rate(server: Running) -> None:
    job = server.wait_for(server.add_job()["id"])
    path = f"/v1/library/{job['sounds'][0]['id']}/audio"
    query = {"response_format": "flac", "sample_rate": 48_000}
    audio = decode_audio(server.client.get(path, params=query).content, "flac")
    assert audio.sample_rate_hz == 48_000


def test_a_sound_can_be_deleted_once(server: Running) -> None:
    job = server.wait_for(server.add_job()["id"])
    path = f"/v1/library/{job['sounds'][0]['id']}"
    assert server.client.delete(path).status_code == 204
    assert server.client.delete(path).status_code == 404
    assert server.client.get(f"{path}/audio").status_code == 404


def test_hostile_words_are_kept_and_found_as_they_are(server: Running) -> None:
    text = "<script>alert(1)</script> %_' OR 1=1; -- \x00 \U0001f600"
    job = server.wait_for(server.add_job(input=text)["id"])
    assert job["sounds"][0]["prompt"] == text
    for query in ("<script>", "%_'", "1=1;"):
        assert server.client.get("/v1/library", params={"q": query}).json()["total"] == 1


def test_cancelling_frees_the_place_within_a_step(server: Running) -> None:
    job = server.add_job(n=8, **LONG)
    wait_until_begun(server, job["id"])
    assert server.client.delete(f"/v1/jobs/{job['id']}").json()["status"] == "cancelled"
    start_s = time.monotonic()
    assert server.generate().status_code == 200
    assert time.monotonic() - start_s < 10
    assert server.client.get("/health").json()["queued_sounds"] == 0
    assert events_of(server, job["id"])[-1]["status"] == "cancelled"


def test_cancelling_what_has_ended_changes_nothing(server: Running) -> None:
    job = server.wait_for(server.add_job()["id"])
    assert server.client.delete(f"/v1/jobs/{job['id']}").json() == job


def test_an_unknown_job_is_not_found(server: Running) -> None:
    for path in ("/v1/jobs/none", "/v1/jobs/none/events", "/v1/jobs/..%2f..%2fetc"):
        assert server.client.get(path).status_code == 404
    answer = server.client.delete("/v1/jobs/none")
    assert answer.status_code == 404
    assert error_of(answer)["param"] == "id"


def test_a_full_queue_says_when_to_come_back(server: Running) -> None:
    jobs = [server.add_job(n=20, **LONG) for _ in range(2)]
    answer = server.client.post("/v1/jobs", json={"input": "rain"})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert error_of(answer)["code"] == "queue_full"
    assert server.generate().status_code == 429
    for job in jobs:
        server.client.delete(f"/v1/jobs/{job['id']}")
    assert server.generate().status_code == 200


def test_a_request_that_takes_too_long_ends_and_leaves_the_queue(tmp_path: Path) -> None:
    with Running(tmp_path / "home", "--set", "deadline_s=0.5") as server:
        server.generate()
        answer = server.generate(n=16, **LONG)
        assert answer.status_code == 408
        assert error_of(answer)["code"] == "deadline_exceeded"
        assert server.client.get("/health").json()["queued_sounds"] == 0


@pytest.mark.slow
def test_a_stopped_server_takes_up_its_jobs_again(tmp_path: Path) -> None:
    options = ("--set", "shutdown_s=1")
    with Running(tmp_path / "home", *options) as server:
        jobs = [server.add_job(n=8, **LONG)["id"], server.add_job(seed=5)["id"]]
        wait_until_begun(server, jobs[0])
        assert server.stop(signal.SIGTERM) == -signal.SIGTERM
    assert "2 jobs have not ended" in server.log.read_text()
    with Running(tmp_path / "home", *options) as server:
        assert server.client.delete(f"/v1/jobs/{jobs[0]}").json()["status"] == "cancelled"
        done = server.wait_for(jobs[1])
        sound = server.client.get(f"/v1/library/{done['sounds'][0]['id']}/audio").content
        assert sound == server.generate(seed=5).content


@pytest.mark.slow
def test_a_signal_to_stop_lets_open_requests_finish(tmp_path: Path) -> None:
    with Running(tmp_path / "home") as server:
        server.generate()
        found: list[int] = []
        ask = threading.Thread(
            target=lambda: found.append(server.generate(n=4, **LONG).status_code)
        )
        ask.start()
        while not server.client.get("/health").json()["queued_sounds"]:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        ask.join()
        assert found == [200]
        server.process.wait(timeout=20)


def test_no_accepted_job_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Running(home) as server:
        before = server.wait_for(server.add_job(seed=77)["id"])
        accepted: list[str] = []

        def ask(number: int) -> None:
            while True:
                try:
                    accepted.append(server.add_job(seed=number)["id"])
                except httpx2.TransportError:
                    return

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        server.process.kill()
        for thread in threads:
            thread.join()
        server.process.wait()
    assert len(accepted) > 10
    with Running(home) as server:
        ended = [server.wait_for(id) for id in accepted]
        assert {job["status"] for job in ended} == {"succeeded"}
        assert all(len(job["sounds"]) == 1 for job in ended)
        by_seed = {(job["sounds"][0]["seed"], job["sounds"][0]["peak"]) for job in ended}
        assert len(by_seed) == 4
        assert server.client.get(f"/v1/jobs/{before['id']}").json() == before
        assert server.client.get("/v1/library", params={"q": "seed 77"}).json()["total"] == 1


def test_a_job_that_ends_the_process_again_and_again_is_given_up(tmp_path: Path) -> None:
    id = leave_job(tmp_path, JobRequest(input="rain"), num_starts=MAX_STARTS)
    job = job_after_start(tmp_path, id)
    assert job.status == "failed"
    assert job.error is not None
    assert "begun 3 times" in job.error.message


def test_a_job_whose_model_is_gone_is_reported_as_failed(tmp_path: Path) -> None:
    id = leave_job(tmp_path, JobRequest(input="rain", model="gone"), num_starts=0)
    job = job_after_start(tmp_path, id)
    assert job.status == "failed"
    assert job.error is not None
    assert "'gone' is not served here" in job.error.message


def leave_job(home: Path, request: JobRequest, num_starts: int) -> str:
    """A job in the file of a server that was killed so often."""
    store, id = Store(home), new_id()
    store.add_job(id, request)
    for _ in range(num_starts):
        store.count_start(id)
    store.close()
    return id


def job_after_start(home: Path, id: str) -> JobView:
    service = Service(ServeConfig(home=home))
    service.start()
    try:
        return service.view(id)
    finally:
        service.stop()
