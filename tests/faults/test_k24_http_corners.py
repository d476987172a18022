"""K24: values at the rim of what HTTP allows. Every route × headers, paths, bodies; no 5xx."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from served import ROUTES, Route, World, serving

from resonate_audio.cli.models import installed
from resonate_audio.core.errors import ConfigError
from resonate_audio.rewards.remote.transport import retry_after_s
from resonate_audio.serving.sounds.shelf import count_weights

ALL = [pytest.param(route, id=str(route)) for route in ROUTES]
HEADERS = [
    b"Origin: http://[::1",
    b"Origin: http://[bad]:99999999",
    b"Origin: \xff\xfe",
    b"Origin: null",
    b"Host: [::1",
    b"Host: a b@c/d",
    b"Host: \xc3\xa9.example",
    b"Host: x:999999",
    b"Content-Length: 99999999999999999999999999",
    b"Content-Length: -1",
    b"Content-Length: 5, 6",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    b"Expect: 100-continue",
    b"Expect: something else",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA",
    b"Range: bytes=\xff",
    b"If-None-Match: \xff",
    b"If-Modified-Since: Mon, 99 Foo 99999 99:99:99 GMT",
    b"If-Range: W/\"x\"",
    b"Authorization: Bearer \xff",
    b"Cookie: \xff=\xff; a=\"",
    b"Content-Type: application/json; charset=nonsense",
    b"Content-Type: multipart/form-data",
    b"Content-Type: multipart/form-data; boundary=" + b"x" * 5000,
    b"X-Rater-Token: \xff.\xff",
    b"X-Rater-Token: " + b"x" * 5000,
    b"X-Forwarded-For: not, an, address",
    b"X-Forwarded-Proto: \xff",
    b"Accept: " + b"*/*," * 1000,
    b"Access-Control-Request-Method: \xff",
]  # fmt: skip
BODIES = [
    b'{"input": "\\ud800", "text": "\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"\\u0000\\u001b[31m": 1}',
    b'{"' + b"x" * 100_000 + b'": 1}',
    b'{"input": "x", "seed": ' + b"9" * 5000 + b"}",
    b'{"input": "x", "guidance_scale": ' + b"9" * 400 + b"}",
    b'{"input": "x", "audio_length": 1e999}',
    b'{"input": "x", "audio_length": NaN, "n": -Infinity}',
    b'{"trial": ' + b"9" * 400 + b', "ms": 1e400}',
    b'{"trial": 0, "scores": {"OVL": 1e400}, "ms": 1}',
    b'{"count": ' + b"9" * 400 + b"}",
    b'{"model": "x", "messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b"[" * 100_000,
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b"\x00",
    b"",
    b"{}",
]
PATHS = ["%00", "%ff", "..%2f..%2fetc%2fpasswd", "a" * 4000, "%F0%9F%98%80", "-1", "9" * 400, "*",
         "%0d%0aX: y", "\\", ";", "'--"]  # fmt: skip


def statuses(answer: bytes) -> list[int]:
    """The codes of all answers in what came back."""
    heads = answer.split(b"HTTP/1.1 ")[1:]
    return [int(head[:3]) for head in heads]


def head(route: Route, world: World, *lines: bytes) -> bytes:
    own = world.servers[route.server].url.encode()
    names = {line.partition(b":")[0].lower() for line in lines}
    given = [b"%s %s HTTP/1.1" % (route.method.encode(), route.at(world).encode())]
    given += [] if b"host" in names else [b"Host: " + own]
    given += [] if b"x-rater-token" in names else [b"X-Rater-Token: " + world.token.encode()]
    return b"\r\n".join([*given, *lines, b"Connection: close"]) + b"\r\n\r\n"


def harmless(route: Route) -> bool:
    """Whether a request may be sent again and again without taking away what others need."""
    return route.method != "DELETE"


@pytest.mark.parametrize("route", [p for p in ALL if harmless(p.values[0])])
def test_no_header_is_answered_with_a_fault_of_the_server(world: World, route: Route) -> None:
    server = world.servers[route.server]
    for line in HEADERS:
        if route.sends == "stream" or (route.path == "/v1/jobs" and b"Expect" in line):
            continue
        found = statuses(server.raw(head(route, world, line), wait_s=2.0))
        assert all(code < 500 or (code == 503 and route.path == "/ready") for code in found), line


@pytest.mark.parametrize("route", [p for p in ALL if p.values[0].method == "POST"])
def test_no_body_is_answered_with_a_fault_of_the_server(world: World, route: Route) -> None:
    with world.client(route.server) as client:
        for body in BODIES:
            for kind in ("application/json", "multipart/form-data; boundary=x"):
                headers = {"Content-Type": kind}
                answer = client.post(route.at(world), content=body, headers=headers)
                assert answer.status_code < 500, (body[:60], answer.text)
                assert len(answer.text) < 2000, body[:60]


@pytest.mark.parametrize("route", [p for p in ALL if "{" in p.values[0].path])
def test_no_path_is_answered_with_a_fault_of_the_server(world: World, route: Route) -> None:
    server = world.servers[route.server]
    before, _, rest = route.path.partition("{")
    after = rest.partition("}")[2].replace("{trial}", "0").replace("{side}", "0")
    for part in PATHS:
        place = f"{before}{part}{after}".replace("{number}", part).replace("{file}", part)
        asked = f"{route.method} {place} HTTP/1.1\r\nHost: {server.url}\r\nConnection: close\r\n"
        token = f"X-Rater-Token: {world.token}\r\n\r\n"
        found = server.raw((asked + token).encode(), wait_s=5.0)
        assert all(code < 500 for code in statuses(found)), place[:80]
        assert len(found) < 4000, place[:80]


@pytest.mark.parametrize("server", ["sounds", "judge", "raters"])
@pytest.mark.parametrize(
    "line",
    [b"OPTIONS * HTTP/1.1", b"CONNECT x:80 HTTP/1.1", b"TRACE / HTTP/1.1", b"GET // HTTP/1.1",
     b"GET http://x/ HTTP/1.1", b"PATCH /health HTTP/1.1", b"GET /health HTTP/9.9", b"GET /health",
     b"POST /health HTTP/1.0", b"GET /health/ HTTP/1.1", b"POST /tokenize/ HTTP/1.1",
     b"\x16\x03\x01",
     b"PROPFIND /v1/jobs HTTP/1.1", b"GET /js HTTP/1.1", b"GET /?a=%ff&a=%00 HTTP/1.1"],
)  # fmt: skip
def test_no_first_line_is_answered_with_a_fault_of_the_server(
    world: World, server: str, line: bytes
) -> None:
    for host in (world.servers[server].url.encode(), b"[::1"):
        asked = line + b"\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
        found = world.servers[server].raw(asked, wait_s=12.0)
        assert all(code < 500 for code in statuses(found)), found[:200]


def test_nothing_of_all_this_left_a_traceback_in_a_log(world: World) -> None:
    for server in world.servers.values():
        assert "Traceback" not in server.said, server.said[server.said.index("Traceback") :][:3000]


@pytest.mark.parametrize(
    ("header", "least"),
    [("120", 120), ("1e9", 1e9), ("inf", 0), ("nan", 0), ("-5", 0), ("9" * 400, 0), ("", 0),
     ("Fri, 31 Dec 999999 23:59:59 GMT", 0), ("Fri, 31 Dec 9999 23:59:59 -2359", 0),
     ("Mon, 01 Jan 0001 00:00:00 +2359", 0), ("Sat, 99 Foo 2020", 0), ("0 0 0 0 0 0", 0),
     ("Fri, 31 Dec 9999 23:59:59 GMT", 1e11), ("Thu, 01 Jan 99999999999999999999 00:00:00", 0)],
)  # fmt: skip
def test_a_judge_may_ask_for_any_time_of_rest(header: str, least: float) -> None:
    found = retry_after_s(header)
    assert found >= least
    assert found < float("inf")


def write_header(path: Path, header: Any) -> Path:
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written)
    return path


HEADERS_OF_WEIGHTS: list[Any] = [
    None, [], 3, "x", {"a": None}, {"a": {}}, {"a": {"dtype": "F32"}}, {"a": [1]},
    {"a": {"dtype": None, "data_offsets": None}}, {"a": {"dtype": [], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "data_offsets": [0]}}, {"a": {"dtype": "F32", "data_offsets": "ab"}},
    {"a": {"dtype": "F32", "data_offsets": [0, 1e400]}},
]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS_OF_WEIGHTS, ids=repr)
def test_a_header_of_another_form_is_told_by_its_file(tmp_path: Path, header: Any) -> None:
    path = write_header(tmp_path / "model.safetensors", header)
    with pytest.raises(
        ConfigError, match=r"model\.safetensors: (not a safetensors file|its header)"
    ):
        count_weights(path)


INDEXES = [b"null", b"[]", b"3", b'"x"', b"{", b"", b"\xff", b"[" * 100_000, b'{"format": null}',
           b'{"a": 1e999}', b"9" * 5000]  # fmt: skip


@pytest.mark.parametrize("index", INDEXES, ids=lambda text: repr(text[:20]))
def test_a_damaged_model_is_listed_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: bytes
) -> None:
    from resonate_audio.model import hub

    [(name, whole)] = [item for item in hub.bundled_models().items() if item[0] == "nano"]
    broken = tmp_path / "broken"
    shutil.copytree(whole, broken)
    (broken / hub.INDEX_NAME).write_bytes(index)
    monkeypatch.setattr(hub, "bundled_models", lambda: {"broken": broken, name: whole})
    listed = {item.name: item.licence for item in installed()}
    assert listed["broken"] == "-"
    assert listed["nano"] != "-"


def test_a_model_that_is_damaged_is_refused_at_the_start_in_one_line(tmp_path: Path) -> None:
    from resonate_audio.model import hub

    broken = tmp_path / "broken"
    shutil.copytree(hub.bundled_models()["nano"], broken)
    weights = next(broken.rglob("model.safetensors"), None) or next(broken.rglob("*.safetensors"))
    write_header(weights, None)
    with (
        pytest.raises(AssertionError, match=r"it ended with 2: resonate: .*safetensors"),
        serving(tmp_path / "log", "serve", "--home", str(tmp_path / "home"), "-m", str(broken)),
    ):
        pass
    assert "Traceback" not in (tmp_path / "log").read_text()
