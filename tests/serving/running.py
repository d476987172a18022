"""A real server in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2

START = (
    "import sys; from resonate_audio.cli import serve; import typer; "
    "from resonate_audio.core.errors import ResonateError\n"
    "app = typer.Typer(); app.command()(serve.serve)\n"
    "try: app(sys.argv[1:], standalone_mode=False)\n"
    "except ResonateError as error: sys.exit(f'resonate: {error}')\n"
)
START_S = 180
"""How long a server may take to answer on a machine that is busy with other things."""
QUICK = {"num_inference_steps": 2, "audio_length": 1.0}


class Running:
    """A server on a free port of loopback, and a client of it."""

    def __init__(
        self,
        home: Path,
        *options: str,
        key: str | None = None,
        start: Sequence[str] = ("-c", START),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it by ``start``, with one thread unless an ``environment`` is given."""
        self.log = home.with_name(f"{home.name}.log")
        if environment is None:
            environment = os.environ | {"OMP_NUM_THREADS": "1", "RESONATE_API_KEY": key or ""}
        command = [sys.executable, *start, "--home", str(home), "--port", "0", *options]
        with self.log.open("ab") as log:
            offset = log.tell()
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            self.url = self._find_url(offset)
        except AssertionError:
            self.process.kill()
            self.process.wait()
            raise
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client = httpx2.Client(base_url=self.url, headers=headers, timeout=120)

    def _find_url(self, offset: int) -> str:
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s:
            said = self.log.read_bytes()[offset:].decode()
            if "listening on " in said:
                return said.partition("listening on ")[2].split("/ ")[0]
            assert self.process.poll() is None, said
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    def __enter__(self) -> Running:
        until_s = time.monotonic() + START_S
        while True:
            try:
                assert self.client.get("/health").status_code == 200
                return self
            except httpx2.TransportError:
                assert time.monotonic() < until_s
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGTERM)

    def stop(self, sign: signal.Signals) -> int:
        """Send a signal and wait; gives the exit code."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(sign)
        return self.process.wait(timeout=60)

    def generate(self, **fields: Any) -> httpx2.Response:
        """Ask for sounds, quick ones unless told otherwise."""
        return self.client.post("/v1/audio/generate", json={"input": "rain", **QUICK, **fields})

    def add_job(self, **fields: Any) -> dict[str, Any]:
        """Ask for a job that must be accepted."""
        answer = self.client.post("/v1/jobs", json={"input": "rain", **QUICK, **fields})
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def wait_for(self, id: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """A job that has ended."""
        until_s = time.monotonic() + timeout_s
        while True:
            job: dict[str, Any] = self.client.get(f"/v1/jobs/{id}").json()
            if job["ended"] is not None or job["status"] == "failed":
                return job
            assert time.monotonic() < until_s, job
            time.sleep(0.05)


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    """The inside of the envelope, after its form was checked."""
    assert answer.headers["content-type"].startswith("application/json"), answer.text[:300]
    body = answer.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"message", "type", "param", "code"}, body
    found: dict[str, Any] = body["error"]
    return found
