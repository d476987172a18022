"""Named keys: hashed, limited, told once; and what a log says of a request."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from running import QUICK, Running, error_of

from resonate_audio.cli.main import run
from resonate_audio.core.errors import ConfigError, InputError
from resonate_audio.serving.keys import (
    Key,
    RequestLimits,
    add_key,
    digest,
    find_key,
    read_keys,
    remove_key,
)


def test_a_file_of_keys_holds_no_key_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = add_key(file, "anna", 60)
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_keys(file) == (Key(name="anna", sha256=digest(secret), requests_per_minute=60),)


def test_each_key_is_found_by_itself_and_no_other_is(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secrets = {name: add_key(file, name) for name in ("anna", "ben")}
    keys = read_keys(file)
    for name, secret in secrets.items():
        found = find_key(secret, keys)
        assert found is not None
        assert found.name == name
        assert find_key(secret[:-1], keys) is None
    assert find_key("", keys) is None
    remove_key(file, "anna")
    assert find_key(secrets["anna"], read_keys(file)) is None


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "-x", "a\n", "ü"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="letters, digits"):
        add_key(tmp_path / "keys.json", name)
    assert not (tmp_path / "keys.json").exists()


def test_a_name_has_one_key(tmp_path: Path) -> None:
    add_key(tmp_path / "keys.json", "anna")
    with pytest.raises(InputError, match="anna has a key already"):
        add_key(tmp_path / "keys.json", "anna")
    with pytest.raises(InputError, match="no key ben; there are anna"):
        remove_key(tmp_path / "keys.json", "ben")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "keys.json"),
        ('{"keys": [{"name": "a"}]}', "keys.0.sha256"),
        ('{"keys": [{"name": "a", "sha256": "12"}]}', "keys.0.sha256"),
        ('{"kyes": []}', "kyes"),
        (json.dumps({"keys": [{"name": "a", "sha256": "0" * 64}] * 2}), "a is there twice"),
    ],
)
def test_a_file_that_is_none_of_keys_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_keys(tmp_path / "keys.json")


def test_a_minute_holds_as_many_requests_as_the_limit_says() -> None:
    limits, key = RequestLimits(), Key(name="a", sha256="0" * 64, requests_per_minute=3)
    assert [limits.wait_s(key, now_s=now) for now in (0.0, 1.0, 2.0)] == [0.0, 0.0, 0.0]
    assert limits.wait_s(key, now_s=10.0) == pytest.approx(50.0)
    assert limits.wait_s(key, now_s=60.0) == 0.0
    assert limits.wait_s(key, now_s=60.5) == pytest.approx(0.5)
    assert limits.wait_s(Key(name="b", sha256="1" * 64), now_s=60.0) == 0.0


def test_the_command_makes_lists_and_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["keys", "add", "anna", "--requests-per-minute", "5"]) == 0
    secret = capsys.readouterr().out.strip()
    found = find_key(secret, read_keys(tmp_path / "keys.json"))
    assert found is not None
    assert found.name == "anna"
    assert run(["keys", "list"]) == 0
    assert capsys.readouterr().out == "anna  5 requests a minute\n"
    assert run(["keys", "remove", "anna"]) == 0
    assert run(["serve", "--keys", "keys.json"]) == 2
    assert "no key in it" in capsys.readouterr().err


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    limits = {"anna": None, "ben": 2}
    return {"file": str(file)} | {name: add_key(file, name, n) for name, n in limits.items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, secrets: dict[str, str]) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("named") / "home"
    with Running(home, "--keys", secrets["file"], "--log", "json") as running:
        yield running


def logged(server: Running, field: str, value: object) -> dict[str, Any]:
    """The one line that has it; a request is logged once its answer has gone out."""
    for _ in range(100):
        said = server.log.read_text().splitlines()
        lines: list[dict[str, Any]] = [json.loads(text) for text in said if text.startswith("{")]
        found = [line for line in lines if line.get(field) == value]
        assert len(found) < 2
        if found:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no line with {field} {value}")


def test_only_a_key_of_the_file_opens_the_server(server: Running, secrets: dict[str, str]) -> None:
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models").status_code == 401
        known = {"Authorization": f"Bearer {secrets['anna']}"}
        assert client.get("/v1/models", headers=known).status_code == 200
        assert client.get("/v1/models", headers={"xi-api-key": secrets["anna"]}).status_code == 200


def test_a_key_that_asks_too_often_is_told_when_to_come_back(
    server: Running, secrets: dict[str, str]
) -> None:
    with httpx2.Client(
        base_url=server.url, timeout=60, headers={"xi-api-key": secrets["ben"]}
    ) as client:
        codes = [client.get("/v1/models").status_code for _ in range(2)]
        answer = client.get("/v1/models")
    assert codes == [200, 200]
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert error_of(answer)["message"] == "ben may ask 2 times a minute"


def test_a_request_has_a_name_and_the_log_says_who_asked_and_what_was_made(
    server: Running, secrets: dict[str, str]
) -> None:
    headers = {"xi-api-key": secrets["anna"], "X-Request-ID": "mine-1"}
    body = {"input": "a secret prompt", "seed": 11, **QUICK}
    with httpx2.Client(base_url=server.url, timeout=120, headers=headers) as client:
        answer = client.post("/v1/audio/generate", json=body)
    assert answer.status_code == 200
    assert answer.headers["X-Request-ID"] == "mine-1"
    request = logged(server, "request_id", "mine-1")
    assert (request["key"], request["status"], request["method"]) == ("anna", 200, "POST")
    made = logged(server, "seeds", [11])
    assert (made["model"], made["status"]) == ("nano", "succeeded")
    assert made["compute_s"] > 0
    assert "a secret prompt" not in server.log.read_text()


def test_a_request_id_that_is_none_is_replaced(server: Running) -> None:
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        answer = client.get("/health", headers={"X-Request-ID": "a b\x1b[31m"})
    assert len(answer.headers["X-Request-ID"]) == 32


def test_of_many_keys_that_are_made_at_once_none_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    names = [f"n{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as people:
        list(people.map(lambda name: add_key(file, name), names))
    assert sorted(key.name for key in read_keys(file)) == names
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]
