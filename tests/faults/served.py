"""Real servers of every kind, and the table of all their routes: a new route is a new row."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from resonate_audio.audio.io import FORMATS, encode_audio, write_audio
from resonate_audio.core.types import Audio
from resonate_audio.serving.listening.answers import Answers
from resonate_audio.serving.listening.test import Design, GivenClip, create_test

START_S = 400
"""How long a server may take to answer on a machine that is busy with other things."""
QUICK = {"num_inference_steps": 2, "audio_length": 1.0}
COMMAND = [sys.executable, "-m", "resonate_audio"]
SERVERS = {
    "sounds": ("serve", "--home", "{home}", "--runs", "{runs}", "--device", "cpu"),
    "judge": ("serve", "--home", "{home}", "--reward", "level_judge:decibels", "--device", "cpu"),
    "raters": ("listen", "serve", "{home}/listening/trees"),
}
"""Every command that serves, by the name that the table of routes calls it."""


class Served:
    """A server in a process of its own, on a free port of loopback."""

    def __init__(
        self, log: Path, *command: str, files: int | None = None, **environment: str
    ) -> None:
        self.log = log
        place = str(Path(__file__).parents[1] / "serving")
        paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), place)))
        known = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "RESONATE_API_KEY": ""}

        def limit() -> None:
            if files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*COMMAND, *command, "--port", "0"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=known | environment,
                preexec_fn=limit,
            )
        self.url = self._find_url()
        self.host, _, port = self.url.rpartition(":")
        self.port = int(port)

    def _find_url(self) -> str:
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s:
            said = self.log.read_text("utf-8", "replace")
            if "listening on " in said:
                return said.partition("listening on ")[2].partition(" (stop")[0].split("/")[2]
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}: {said[-3000:]}")
            time.sleep(0.05)
        self.process.kill()
        self.process.wait()
        raise AssertionError("the server did not start")

    def client(self, **options: Any) -> httpx2.Client:
        """A client of it."""
        return httpx2.Client(base_url=f"http://{self.url}", timeout=120, **options)

    def wait(self) -> None:
        """Wait until it answers."""
        until_s = time.monotonic() + START_S
        with self.client() as client:
            while True:
                try:
                    client.get("/health")
                    return
                except httpx2.TransportError:
                    assert time.monotonic() < until_s, self.said
                    time.sleep(0.05)

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self.log.read_text("utf-8", "replace")

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; gives the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sign)
        return self.process.wait(timeout=60)

    def raw(self, data: bytes, wait_s: float = 20.0) -> bytes:
        """Send bytes as they are; gives all that comes back until the server closes."""
        with socket.create_connection((self.host, self.port), timeout=wait_s) as connection:
            connection.sendall(data)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the other side closes or the timeout is over."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except (TimeoutError, ConnectionResetError):
        pass
    return found


@contextmanager
def serving(log: Path, *command: str, **options: Any) -> Iterator[Served]:
    """A server for as long as a block lasts."""
    server = Served(log, *command, **options)
    try:
        server.wait()
        yield server
    finally:
        server.stop(signal.SIGKILL)


@dataclass
class World:
    """Servers of every kind over one home, and the names of what lies in it."""

    home: Path
    runs: Path
    servers: dict[str, Served] = field(default_factory=dict)
    job: str = ""
    sound: str = ""
    run: str = ""
    take: str = ""
    token: str = ""

    def find_run(self, client: httpx2.Client) -> None:
        """The first run that is listed, and the take it tells first."""
        self.run = client.get("/v1/runs").json()["data"][0]["id"]
        self.take = client.get(f"/v1/runs/{self.run}").json()["takes"][0]["id"]

    def client(self, server: str) -> httpx2.Client:
        """A client of one of them, with a rater's token."""
        headers = {"X-Rater-Token": self.token}
        return self.servers[server].client(headers=headers)


def tone(length_s: float = 1.0) -> Audio:
    """A quiet tone."""
    rate_hz = 16_000
    times = np.arange(int(length_s * rate_hz), dtype=np.float32)
    return Audio((0.2 * np.sin(times * 0.05)).astype(np.float32), rate_hz)


def make_listening(home: Path) -> str:
    """A listening test by the name of trees; gives a token."""
    given = [GivenClip(system, "p0", "rain", tone(0.5)) for system in ("a", "b")]
    test = create_test(home / "listening" / "trees", Design(preset="ovl", num_repeats=0), given)
    return f"trees.{Answers(home / 'listening' / 'trees', test).join()}"


def make_run(folder: Path, takes: list[dict[str, Any]] | None = None) -> None:
    """A finished run with one take."""
    folder.mkdir(parents=True)
    write_audio(folder / "takes" / "1.wav", tone())
    line = {"step": 1, "prompt": "rain", "take": 0, "kind": "best", "reward": 0.5,
            "parts": {"a": 0.5}, "file": "takes/1.wav"}  # fmt: skip
    (folder / "recipe.yaml").write_text("model: nano\n", encoding="utf-8")
    (folder / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n', encoding="utf-8")
    lines = [line, *(line | other for other in takes or [])]
    text = "".join(json.dumps(one) + "\n" for one in lines)
    (folder / "takes.jsonl").write_text(text, encoding="utf-8")


def wav() -> bytes:
    """A sound file."""
    return encode_audio(tone(0.5), FORMATS[".wav"])


@dataclass(frozen=True)
class Route:
    """One route: how it is asked, and what comes."""

    server: str
    method: str
    path: str
    """As the app has it."""
    ids: Callable[[World], Mapping[str, str]] = lambda _: {}
    body: Mapping[str, Any] | None = None
    """JSON that it takes."""
    sends: str = "json"
    """``json``, ``sound``, ``file``, ``stream``, ``page`` or ``none``."""
    form: Mapping[str, Any] | None = None
    """Fields of a form that it takes."""

    def at(self, world: World) -> str:
        """The path with real names in it."""
        return self.path.replace(":path", "").format(**self.ids(world))

    def __str__(self) -> str:
        return f"{self.server} {self.method} {self.path}"


def _job(world: World) -> Mapping[str, str]:
    return {"id": world.job}


def _sound(world: World) -> Mapping[str, str]:
    return {"id": world.sound}


def _run(world: World) -> Mapping[str, str]:
    return {"id": world.run, "take": world.take}


def _trees(_: World) -> Mapping[str, str]:
    return {"name": "trees", "file": "results.tex", "trial": "0", "side": "0"}


ASKED = {"input": "rain", **QUICK}
CHAT = {"model": "level_judge:decibels", "messages": [{"role": "user", "content": "?"}]}
LISTENING = "/v1/listening"
PAGES = ("/", "/index.html", "/listen.html", "/page.css")
RATERS = [
    Route("raters", "GET", f"{LISTENING}/tests/{{name}}", _trees),
    Route("raters", "POST", f"{LISTENING}/tests/{{name}}/raters", _trees),
    Route("raters", "GET", f"{LISTENING}/session"),
    Route("raters", "GET", f"{LISTENING}/session/trials/{{trial}}/clips/{{side}}", _trees,
          sends="sound"),
    Route("raters", "POST", f"{LISTENING}/session/answers",
          body={"trial": 0, "scores": {"OVL": 3}, "ms": 3000}),
]  # fmt: skip
ROUTES = [
    Route("sounds", "POST", "/v1/audio/generate", body=ASKED, sends="file"),
    Route("sounds", "POST", "/v1/sound-generation",
          body={"text": "rain", "duration_seconds": 0.5}, sends="file"),
    Route("sounds", "POST", "/v1/jobs", body=ASKED),
    Route("sounds", "GET", "/v1/jobs/{id}", _job),
    Route("sounds", "DELETE", "/v1/jobs/{id}", _job),
    Route("sounds", "GET", "/v1/jobs/{id}/events", _job, sends="stream"),
    *(Route("sounds", "POST", f"/v1/audio/{kind}", form={"strength": "0.5"}, sends="file")
      for kind in ("vary", "reword", "replace", "extend", "loop", "finish")),
    Route("sounds", "GET", "/v1/library"),
    Route("sounds", "POST", "/v1/library", form={"name": "door"}),
    Route("sounds", "POST", "/v1/library/zip", lambda _: {}, {"ids": ["x"]}, sends="file"),
    Route("sounds", "GET", "/v1/library/{id}", _sound),
    Route("sounds", "PATCH", "/v1/library/{id}", _sound, {"name": "door"}),
    Route("sounds", "POST", "/v1/library/{id}/finish", _sound, {"trim_db": -50}),
    Route("sounds", "GET", "/v1/library/{id}/audio", _sound, sends="sound"),
    Route("sounds", "DELETE", "/v1/library/{id}", _sound, sends="none"),
    Route("sounds", "GET", "/v1/models"),
    Route("sounds", "GET", "/v1/models/{id:path}", lambda _: {"id": "nano"}),
    Route("sounds", "GET", "/health"),
    Route("sounds", "GET", "/ready"),
    Route("sounds", "GET", "/metrics", sends="file"),
    *(Route("sounds", r.method, r.path, r.ids, r.body, r.sends) for r in RATERS),
    Route("sounds", "GET", f"{LISTENING}/tests"),
    Route("sounds", "POST", f"{LISTENING}/tests", form={"name": "more", "design": "{}"}),
    Route("sounds", "POST", f"{LISTENING}/tests/{{name}}/invitations", _trees, body={"count": 1}),
    Route("sounds", "GET", f"{LISTENING}/tests/{{name}}/results", _trees),
    Route("sounds", "GET", f"{LISTENING}/tests/{{name}}/files/{{file}}", _trees, sends="file"),
    Route("sounds", "GET", "/v1/runs"),
    Route("sounds", "GET", "/v1/runs/{id}", _run),
    Route("sounds", "GET", "/v1/runs/{id}/takes/{take}", _run, sends="sound"),
    *(Route("sounds", "GET", path, sends="page") for path in PAGES),
    Route("sounds", "GET", "/openapi.json"),
    Route("judge", "POST", "/v1/chat/completions", body=CHAT),
    Route("judge", "POST", "/tokenize", body={"model": "level_judge:decibels", "prompt": "yes"}),
    Route("judge", "GET", "/v1/models"),
    Route("judge", "GET", "/health"),
    Route("judge", "GET", "/ready"),
    Route("judge", "GET", "/metrics", sends="file"),
    Route("judge", "GET", "/openapi.json"),
    *RATERS,
    Route("raters", "GET", "/health"),
    Route("raters", "GET", "/ready"),
    *(Route("raters", "GET", path, sends="page") for path in PAGES),
]  # fmt: skip


def routes(**wanted: str) -> list[Any]:
    """Rows of the table with such fields, as pytest's parameters."""
    import pytest

    chosen = [r for r in ROUTES if all(getattr(r, name) == one for name, one in wanted.items())]
    return [pytest.param(route, id=str(route)) for route in chosen]


def make_world(place: Path) -> World:
    """Start every server over one home with a job, a sound, a run and a listening test."""
    world = World(place / "home", place / "runs")
    try:
        _fill(world, place)
    except BaseException:
        for server in world.servers.values():
            server.stop(signal.SIGKILL)
        raise
    return world


def _fill(world: World, place: Path) -> None:
    world.home.mkdir(mode=0o700)
    world.token = make_listening(world.home)
    make_run(world.runs / "one")
    for name, command in SERVERS.items():
        filled = [part.format(home=world.home, runs=world.runs) for part in command]
        if name == "judge":
            filled[2] = str(place / "judge-home")
        world.servers[name] = Served(place / f"{name}.log", *filled)
    for server in world.servers.values():
        server.wait()
    with world.client("sounds") as client:
        world.job, world.sound = make_sound(client)
        world.find_run(client)


def make_sound(client: httpx2.Client) -> tuple[str, str]:
    """A job that has ended, and its sound."""
    answer = client.post("/v1/jobs", json=ASKED)
    assert answer.status_code == 202, answer.text
    id = answer.json()["id"]
    until_s = time.monotonic() + 120
    while (job := client.get(f"/v1/jobs/{id}").json())["ended"] is None:
        assert time.monotonic() < until_s, job
        time.sleep(0.1)
    assert job["status"] == "succeeded", job
    return id, job["sounds"][0]["id"]
