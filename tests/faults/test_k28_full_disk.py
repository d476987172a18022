"""K28: a server whose disk is full, or whose home cannot be used. Every route that writes, and the
start of every command that serves."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from running import error_of
from served import (
    ASKED,
    COMMAND,
    PAGES,
    ROUTES,
    SERVERS,
    Served,
    make_listening,
    make_run,
    make_sound,
    serving,
    wav,
)
from small_disk import fill, small_disk

from resonate_audio.core.errors import DiskFullError, OutputError
from resonate_audio.serving.database import BALLAST_BYTES
from resonate_audio.serving.sounds.requests import JobRequest
from resonate_audio.serving.sounds.store import FILE_NAME, Sound, Store, new_id

WRITES = {
    "POST /v1/jobs": 507,
    "POST /v1/library": 507,
    "POST /v1/library/{id}/finish": 507,
    "POST /v1/listening/tests": 507,
    "POST /v1/listening/tests/{name}/raters": 507,
    "POST /v1/listening/tests/{name}/invitations": 507,
    "POST /v1/listening/session/answers": 507,
    "GET /v1/listening/session/trials/{trial}/clips/{side}": 507,
    "GET /v1/listening/tests/{name}/files/{file}": 200,
    "DELETE /v1/jobs/{id}": 200,
    "DELETE /v1/library/{id}": 204,
    "PATCH /v1/library/{id}": 200,
}
"""What writes on the server's disk, and the answer when it is full."""
READS = {
    "POST /v1/audio/generate", "POST /v1/sound-generation", "GET /v1/jobs/{id}",
    *(f"POST /v1/audio/{kind}" for kind in ("vary", "reword", "replace", "extend", "loop")),
    "POST /v1/audio/finish", "GET /v1/library/{id}", "POST /v1/library/zip",
    "GET /v1/jobs/{id}/events", "GET /v1/library", "GET /v1/library/{id}/audio", "GET /v1/models",
    "GET /v1/models/{id:path}", "GET /health", "GET /ready", "GET /metrics",
    *(f"GET {path}" for path in PAGES),
    "GET /v1/listening/tests/{name}", "GET /v1/listening/session", "GET /v1/listening/tests",
    "GET /v1/listening/tests/{name}/results", "GET /v1/runs", "GET /v1/runs/{id}",
    "GET /v1/runs/{id}/takes/{take}", "GET /openapi.json",
}  # fmt: skip
"""What goes on as ever."""


def test_every_route_is_known_to_write_or_not() -> None:
    named = {f"{route.method} {route.path}" for route in ROUTES if route.server == "sounds"}
    assert named == set(WRITES) | READS


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path, str]]:
    """A server whose disk was filled by something else while it ran."""
    place = tmp_path_factory.mktemp("full")
    with small_disk(place / "disk") as disk:
        token = make_listening(disk / "home")
        make_run(place / "runs" / "one")
        command = [p.format(home=disk / "home", runs=place / "runs") for p in SERVERS["sounds"]]
        (disk / "tmp").mkdir()
        with serving(place / "log", *command, TMPDIR=str(disk / "tmp")) as server:
            yield server, disk, token


def form() -> dict[str, object]:
    return {
        "data": {"name": "more", "design": json.dumps({"preset": "ovl"})},
        "files": [(f"system:{name}", ("p0.wav", wav(), "audio/wav")) for name in "ab"],
    }


def test_a_full_disk_is_told_and_nothing_but_the_disk_stops(
    full: tuple[Served, Path, str],
) -> None:
    server, disk, token = full
    with server.client(headers={"X-Rater-Token": token}) as client:
        job, sound = make_sound(client)
        run = client.get("/v1/runs").json()["data"][0]["id"]
        take = client.get(f"/v1/runs/{run}").json()["takes"][0]["id"]
        client.get("/v1/listening/session/trials/0/clips/0")
        fill(disk)
        assert_full(client, "POST", "/v1/jobs", json=ASKED)
        sent = {"files": {"audio": ("a.wav", wav(), "audio/wav")}}
        assert_full(client, "POST", "/v1/library", **sent)
        assert_full(client, "POST", f"/v1/library/{sound}/finish", json={"trim_db": -50})
        assert_full(client, "POST", "/v1/listening/tests", **form())
        assert_full(client, "POST", "/v1/listening/tests/trees/raters")
        assert_full(client, "POST", "/v1/listening/tests/trees/invitations", json={"count": 1})
        body = {"trial": 0, "scores": {"OVL": 3}, "ms": 3000}
        assert_full(client, "POST", "/v1/listening/session/answers", json=body)
        for path in (
            "/health", f"/v1/jobs/{job}", "/v1/library", f"/v1/library/{sound}/audio",
            "/v1/listening/tests", "/v1/listening/session", "/v1/runs",
            f"/v1/runs/{run}/takes/{take}",
        ):  # fmt: skip
            assert client.get(path).status_code == 200, path
        assert client.post("/v1/audio/generate", json=ASKED).status_code == 200
        assert client.patch(f"/v1/library/{sound}", json={"name": "a"}).status_code == 200
        assert client.delete(f"/v1/jobs/{job}").status_code == 200
        assert client.delete(f"/v1/library/{sound}").status_code == 204
        assert client.get("/v1/library").json()["total"] == 0
        make_sound(client)  # in the room of the one that was deleted
    assert "Traceback" not in server.said, server.said


def assert_full(client: httpx2.Client, method: str, path: str, **body: object) -> None:
    answer = client.request(method, path, **body)  # type: ignore[arg-type]
    assert answer.status_code == 507, (path, answer.status_code, answer.text)
    error = error_of(answer)
    assert error["code"] == "disk_full"
    assert "the disk of this server is full" in error["message"]
    assert "DELETE /v1/library/ID" in error["message"]


def sound_of(job: str) -> Sound:
    return Sound(
        id=new_id(), job=job, created=0.0, prompt="rain", negative_prompt="", model="nano",
        duration_s=1.0, num_inference_steps=1, guidance_scale=1.0, seed=1, sample_rate=16_000,
        peak=0.5,
    )  # fmt: skip


def add_sounds(store: Store, num_bytes: int) -> list[str]:
    """Keep sounds of so many bytes until the disk is full; gives their jobs."""
    jobs = []
    try:
        while len(jobs) < 2000:
            id = new_id()
            store.add_job(id, JobRequest(input="rain"))
            jobs.append(id)
            store.end_job(id, "succeeded", None, [(sound_of(id), os.urandom(num_bytes))])
    except DiskFullError:
        pass
    return jobs


@pytest.mark.parametrize(
    ("size", "num_bytes"),
    [("2m", 32_000), ("2m", 600_000), ("8m", 32_000), ("8m", 700_000), ("60m", 5_000_000)],
)
def test_sounds_that_fill_a_disk_of_any_size_can_be_deleted(
    tmp_path: Path, size: str, num_bytes: int
) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        store = Store(disk / "home")
        jobs = add_sounds(store, num_bytes)
        kept = [sound for job in jobs for sound in store.sounds_of(job)]
        assert 0 < len(kept) < 2000
        fill(disk)
        before = os.statvfs(disk).f_bavail
        for sound in kept:
            assert store.delete_sound(sound.id)
        gained = (os.statvfs(disk).f_bavail - before) * os.statvfs(disk).f_frsize
        assert gained > len(kept) * num_bytes - BALLAST_BYTES
        add_sounds(store, num_bytes)
        store.close()


def test_a_job_that_a_full_disk_leaves_unwritten_is_made_after_the_next_start(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        store = Store(disk / "home")
        id = new_id()
        store.add_job(id, JobRequest(input="rain"))
        taken = fill(disk)
        with pytest.raises(DiskFullError, match="the disk is full"):
            store.end_job(id, "succeeded", None, [(sound_of(id), bytes(900_000))])
        store.close()
        again = Store(disk / "home")  # opens on the full disk, too
        assert [job.id for job in again.open_jobs()] == [id]
        taken.unlink()
        again.end_job(id, "succeeded", None, [(sound_of(id), bytes(900_000))])
        assert len(again.sounds_of(id)) == 1
        again.close()


def not_a_database(home: Path) -> None:
    home.mkdir()
    (home / FILE_NAME).write_bytes(b"this is no database" * 100)


def cut_short(home: Path) -> None:
    Store(home).close()
    data = (home / FILE_NAME).read_bytes()
    (home / FILE_NAME).write_bytes(data[: len(data) // 2])


def torn(home: Path) -> None:
    store = Store(home)
    store.add_job(new_id(), JobRequest(input="rain"))
    store.close()
    data = bytearray((home / FILE_NAME).read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    (home / FILE_NAME).write_bytes(data)


def another_program(home: Path) -> None:
    home.mkdir()
    with sqlite3.connect(home / FILE_NAME) as base:
        base.execute("CREATE TABLE jobs (name TEXT)")
    base.close()


def later_version(home: Path) -> None:
    Store(home).close()
    with sqlite3.connect(home / FILE_NAME) as base:
        base.execute("PRAGMA user_version = 99")
    base.close()


def is_a_file(home: Path) -> None:
    home.write_text("x")


def under_a_file(home: Path) -> None:
    home.parent.rmdir()
    home.parent.write_text("x")


def database_is_a_folder(home: Path) -> None:
    (home / FILE_NAME).mkdir(parents=True)


HOMES: dict[str, Callable[[Path], None]] = {
    "no database": not_a_database,
    "cut short": cut_short,
    "torn": torn,
    "another program's": another_program,
    "a later version's": later_version,
    "a file": is_a_file,
    "under a file": under_a_file,
    "a folder for a database": database_is_a_folder,
}


@pytest.mark.parametrize("damage", sorted(HOMES))
def test_a_home_that_cannot_be_used_is_told_in_one_error(tmp_path: Path, damage: str) -> None:
    (tmp_path / "place").mkdir()
    home = tmp_path / "place" / "home"
    HOMES[damage](home)
    with pytest.raises(OutputError, match=r"home|place") as caught:
        Store(home).open_jobs()
    assert "\n" not in str(caught.value)


def test_a_full_disk_at_the_first_start_is_told_in_one_error(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        fill(disk)
        with pytest.raises(DiskFullError, match="the disk is full"):
            Store(disk / "home")


def refusal(*words: str) -> str:
    """The one line that a command in a process of its own ends with, and 2."""
    done = subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line]
    return line


@pytest.mark.parametrize("command", [["serve"], ["studio", "--no-open"]])
def test_commands_that_serve_end_with_2_and_one_line(tmp_path: Path, command: list[str]) -> None:
    for number, damage in enumerate(("torn", "a file")):
        place = tmp_path / str(number)
        place.mkdir()
        HOMES[damage](place / "home")
        line = refusal(*command, "--home", str(place / "home"), "--port", "0", "--device", "cpu")
        assert str(place) in line


def test_a_listening_test_whose_answers_are_damaged_ends_with_2_and_one_line(
    tmp_path: Path,
) -> None:
    make_listening(tmp_path)
    (tmp_path / "listening" / "trees" / "answers.sqlite").write_bytes(b"x" * 5000)
    line = refusal("listen", "serve", str(tmp_path / "listening" / "trees"), "--port", "0")
    assert "answers.sqlite: cannot be used" in line
