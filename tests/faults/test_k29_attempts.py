"""K29: what is counted against a job is that a worker began with it and the process ended."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from served import ASKED, serving

from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.sounds.requests import JobRequest
from resonate_audio.serving.sounds.service import MAX_STARTS, Service
from resonate_audio.serving.sounds.store import Store, new_id

LONG = {"num_inference_steps": 25, "audio_length": 10.0}


def starts(home: Path, id: str) -> int:
    store = Store(home)
    job = store.find_job(id)
    store.close()
    assert job is not None
    return job.num_starts


def leave_job(home: Path, **fields: Any) -> str:
    store, id = Store(home), new_id()
    store.add_job(id, JobRequest(input="rain", **fields))
    store.close()
    return id


def until(condition: Any) -> None:
    until_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_orderly_restarts_count_nothing_whether_a_job_waits_or_runs(tmp_path: Path) -> None:
    running, waiting = leave_job(tmp_path, n=16, **LONG), leave_job(tmp_path, **LONG)
    for _ in range(MAX_STARTS + 2):
        service = Service(ServeConfig(home=tmp_path, max_batch_rows=1))
        service.start()
        until(lambda service=service: service.view(running).status == "running")
        assert service.view(waiting).status == "queued"
        service.stop()
    assert (starts(tmp_path, running), starts(tmp_path, waiting)) == (0, 0)


def test_restarts_before_a_worker_took_anything_count_nothing(tmp_path: Path) -> None:
    id = leave_job(tmp_path)
    for _ in range(MAX_STARTS + 2):
        Store(tmp_path).close()
    service = Service(ServeConfig(home=tmp_path))
    service.start()
    until(lambda: service.view(id).status == "succeeded")
    service.stop()


def test_only_ends_of_the_process_while_a_job_ran_count(tmp_path: Path) -> None:
    home = tmp_path / "home"
    running, waiting = leave_job(home, n=16, **LONG), leave_job(home, **LONG)
    command = ("serve", "--home", str(home), "--device", "cpu", "--set", "max_batch_rows=1")
    for number in range(MAX_STARTS):
        with serving(tmp_path / "log", *command) as server, server.client() as client:

            def is_running(client: Any = client) -> bool:
                return bool(client.get(f"/v1/jobs/{running}").json()["status"] == "running")

            until(is_running)
            server.stop(signal.SIGKILL)
        assert (starts(home, running), starts(home, waiting)) == (number + 1, 0)
    with serving(tmp_path / "log", *command) as server, server.client() as client:
        job = client.get(f"/v1/jobs/{running}").json()
        assert job["status"] == "failed"
        assert f"begun {MAX_STARTS} times" in job["error"]["message"]
        assert client.get(f"/v1/jobs/{waiting}").json()["status"] in ("queued", "running")
        assert client.post("/v1/jobs", json=ASKED).status_code == 202
