"""Who may call the server, and from where."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from running import QUICK, Running, error_of
from typer.testing import CliRunner

from resonate_audio.cli import serve
from resonate_audio.core.errors import ConfigError, InputError, OutputError

pytest.importorskip("uvicorn", reason='needs pip install "resonate-audio[serve]"')
KEY = "correct-horse-battery"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("safety") / "home"
    options = ("--set", "cors_origins=[https://example.org]", "--set", "body_timeout_s=0.5")
    with Running(home, *options, key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def stranger(server: Running) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"xi-api-key": KEY[:-1]},
        {"xi-api-key": "\u00e9".encode("latin-1").decode("latin-1")},
    ],
)
def test_without_the_key_nothing_is_done(stranger: httpx2.Client, headers: dict[str, str]) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    for path in ("/v1/models", "/v1/library", "/metrics", "/v1/runs", "/v1/listening/tests"):
        answer = stranger.get(path, headers=encoded)
        assert answer.status_code == 401
        assert error_of(answer)["code"] == "invalid_api_key"
    assert stranger.post("/v1/audio/generate", json={}, headers=encoded).status_code == 401


def test_either_header_may_bring_the_key(server: Running, stranger: httpx2.Client) -> None:
    assert server.client.get("/v1/models").status_code == 200
    assert stranger.get("/v1/models", headers={"xi-api-key": KEY}).status_code == 200


def test_pages_health_and_raters_need_no_key(stranger: httpx2.Client) -> None:
    assert stranger.get("/").status_code == 200
    assert stranger.get("/health").status_code == 200
    assert stranger.get("/v1/listening/tests/none").status_code == 404
    assert stranger.get("/v1/listening/tests/none/results").status_code == 401


def test_the_description_of_the_api_is_served(stranger: httpx2.Client) -> None:
    assert "/v1/audio/generate" in stranger.get("/openapi.json").json()["paths"]


def test_another_sites_page_may_change_nothing(server: Running) -> None:
    body = {"input": "rain", **QUICK}
    evil = {"Origin": "https://evil.example"}
    assert server.client.post("/v1/jobs", json=body, headers=evil).status_code == 403
    assert server.client.post("/v1/jobs", json=body, headers={"Origin": "null"}).status_code == 403
    own = {"Origin": server.url}
    assert server.client.post("/v1/jobs", json=body, headers=own).status_code == 202


def test_only_origins_that_were_named_are_let_in(server: Running) -> None:
    asked = {"Access-Control-Request-Method": "POST"}
    for origin, expected in (("https://example.org", "https://example.org"), ("https://x", None)):
        answer = server.client.options("/v1/jobs", headers=asked | {"Origin": origin})
        assert answer.headers.get("access-control-allow-origin") == expected


def test_pages_of_named_origins_can_read_why_they_are_refused(stranger: httpx2.Client) -> None:
    answer = stranger.get("/v1/models", headers={"Origin": "https://example.org"})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "https://example.org"


def test_a_home_has_one_server(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Running(home), pytest.raises(OutputError, match=r"process .* is at work in it"):
        run("--home", str(home), "--device", "cpu", "--port", "0")


def test_a_name_that_no_header_can_hold_is_refused(tmp_path: Path) -> None:
    for options in (("--model", "m\u96e8=nano"), ("--adapter", "a\u00fc=nothing.safetensors")):
        with pytest.raises(ConfigError, match="expected letters from A to Z"):
            run("--home", str(tmp_path), "--device", "cpu", *options)


def test_a_body_that_never_ends_is_given_up(server: Running) -> None:
    import socket
    from urllib.parse import urlsplit

    place = urlsplit(server.url)
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port or 0), timeout=10) as connection:
        head = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/audio/generate", '{"input": "rain", "input": "wind"}'),
        ("/v1/jobs", '{"input": "rain", "finish": {"fade_s": 0, "fade_s": 1}}'),
        ("/v1/library/zip", '{"ids": [], "ids": []}'),
    ],
)
def test_a_body_with_a_field_twice_is_refused(server: Running, path: str, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = server.client.post(path, content=body, headers=headers)
    assert answer.status_code == 400
    assert "stands there twice" in error_of(answer)["message"]


def test_a_request_may_name_the_server_in_its_target(server: Running) -> None:
    assert answer_to(server, f"GET {server.url}/v1/models HTTP/1.1").startswith("HTTP/1.1 200")
    assert answer_to(server, f"GET {server.url} HTTP/1.1").startswith("HTTP/1.1 200")
    assert answer_to(server, "GET http://a@b/v1/models HTTP/1.1").startswith("HTTP/1.1 400")


def answer_to(server: Running, line: str) -> str:
    import socket
    from urllib.parse import urlsplit

    place = urlsplit(server.url)
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port or 0), timeout=30) as connection:
        rest = f"Host: {place.netloc}\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
        connection.sendall(f"{line}\r\n{rest}".encode())
        return connection.recv(1000).decode()


def test_without_a_key_only_our_own_name_is_answered_to(tmp_path: Path) -> None:
    with Running(tmp_path / "home") as server:
        answer = server.client.get("/v1/models", headers={"Host": "evil.example"})
        assert answer.status_code == 421
        port = server.url.rpartition(":")[2]
        named = server.client.get("/v1/models", headers={"Host": f"localhost:{port}"})
        assert named.status_code == 200
        assert server.client.post("/v1/jobs", content=b"input=rain").status_code == 422
        assert "access-control-allow-origin" not in server.client.get("/v1/models").headers
        folder = tmp_path / "home"
        assert folder.stat().st_mode & 0o077 == 0
        server.stop(signal.SIGTERM)


def run(*options: str) -> None:
    import typer

    app = typer.Typer()
    app.command()(serve.serve)
    result = CliRunner().invoke(app, list(options))
    assert result.exception is not None
    raise result.exception


def test_another_address_needs_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RESONATE_API_KEY", raising=False)
    with pytest.raises(InputError, match="set RESONATE_API_KEY to a key first"):
        run("--host", "0.0.0.0", "--home", str(tmp_path))


@pytest.mark.parametrize("key", ["short", "with space inside", "\u00e9" * 9])
def test_a_weak_key_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    monkeypatch.setenv("RESONATE_API_KEY", key)
    with pytest.raises(ConfigError, match="api_key") as caught:
        run("--home", str(tmp_path))
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "named"),
    [("max_batch_rows=0", "max_batch_rows"), ("nonsense=1", "nonsense"), ("deadline_s=x", "dead")],
)
def test_a_bad_setting_is_refused_by_name(tmp_path: Path, setting: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        run("--home", str(tmp_path), "--device", "cpu", "--set", setting)
