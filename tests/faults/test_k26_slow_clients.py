"""K26: clients that are slow or greedy. Every command that serves × ways to hold a connection."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from served import SERVERS, Served, make_listening, make_run, serving

HEAD_S, BODY_S, SEND_S = 1.5, 1.5, 2.0
SLACK_S = 8.0
"""What a busy machine may add."""
FILES = 100
"""Descriptors that each server may have open."""
SHORT = [
    f"--set={name}={value}"
    for name, value in (
        ("head_timeout_s", HEAD_S), ("body_timeout_s", BODY_S), ("send_timeout_s", SEND_S),
    )
]  # fmt: skip


@contextlib.contextmanager
def short(name: str, place: Path) -> Iterator[Served]:
    """A server with short deadlines and few descriptors."""
    (place / "home").mkdir()
    make_listening(place / "home")
    make_run(place / "runs" / "one")
    filled = [part.format(home=place / "home", runs=place / "runs") for part in SERVERS[name]]
    with serving(place / "log", *filled, *SHORT, files=FILES) as server:
        yield server


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    """One of each command that serves."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(short(name, tmp_path_factory.mktemp(name)))
            for name in SERVERS
        }


@pytest.fixture(params=sorted(SERVERS))
def server(request: pytest.FixtureRequest, servers: dict[str, Served]) -> Served:
    return servers[request.param]


def connect(server: Served, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection((server.host, server.port), timeout=30)
    connection.sendall(data)
    return connection


def closed_after_s(connection: socket.socket, drip: bytes = b"", limit_s: float = 30.0) -> float:
    """How long the server holds a connection, sending it a byte each half second."""
    start_s = time.monotonic()
    connection.settimeout(0.5)
    while (spent_s := time.monotonic() - start_s) < limit_s:
        try:
            if drip:
                connection.sendall(drip)
            if not connection.recv(65536):
                return spent_s
        except TimeoutError:
            continue
        except OSError:
            return spent_s
    return limit_s


def head(server: Served, line: str, *more: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", f"Host: {server.url}", *more]).encode() + b"\r\n"


WAYS: dict[str, tuple[Callable[[Served], bytes], bytes, float]] = {
    "nothing at all": (lambda s: b"", b"", HEAD_S),
    "half a line": (lambda s: b"GET /hea", b"", HEAD_S),
    "half a head": (lambda s: head(s, "GET /health", "X-A: b"), b"", HEAD_S),
    "a head letter by letter": (lambda s: head(s, "GET /health", "X-A: b"), b"x", HEAD_S),
    "a second head letter by letter": (
        lambda s: head(s, "GET /health") + b"\r\nGET /hea",
        b"x",
        HEAD_S,
    ),
    "a body that does not come": (
        lambda s: (
            head(s, "POST /v1/x", "Content-Type: application/json", "Content-Length: 99") + b"\r\n{"
        ),
        b"",
        BODY_S,
    ),
    "a body letter by letter": (
        lambda s: (
            head(s, "POST /v1/x", "Content-Type: application/json", "Content-Length: 9999")
            + b"\r\n{"
        ),
        b" ",
        BODY_S,
    ),
    "chunks letter by letter": (
        lambda s: head(s, "POST /v1/x", "Transfer-Encoding: chunked") + b"\r\n",
        b"1\r\nx\r\n",
        BODY_S,
    ),
    "a body of what takes none": (
        lambda s: head(s, "GET /health", "Content-Length: 9999") + b"\r\n",
        b"x",
        BODY_S,
    ),
}
"""What a client sends, then again and again, and which deadline ends it."""


def test_no_way_to_be_slow_holds_a_connection(server: Served) -> None:
    def held_s(way: str) -> float:
        data, drip, _ = WAYS[way]
        with connect(server, data(server)) as connection:
            return closed_after_s(connection, drip)

    with ThreadPoolExecutor(len(WAYS)) as at_once:
        found = dict(zip(WAYS, at_once.map(held_s, WAYS), strict=True))
    assert {way: s for way, s in found.items() if s >= WAYS[way][2] + SLACK_S} == {}


BODIES = {
    "sounds": "/v1/jobs",
    "judge": "/v1/chat/completions",
    "raters": "/v1/listening/session/answers",
}


@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_body_as_a_whole_has_a_deadline_and_is_told_so(
    servers: dict[str, Served], name: str
) -> None:
    server, path = servers[name], BODIES[name]
    asked = head(
        server, f"POST {path}", "Content-Type: application/json", "Content-Length: 9999",
        "X-Rater-Token: trees.x",
    )  # fmt: skip
    with connect(server, asked + b"\r\n{") as connection:
        start_s, found = time.monotonic(), b""
        connection.settimeout(0.2)
        while not found and time.monotonic() - start_s < 20:
            with contextlib.suppress(TimeoutError):
                connection.sendall(b" ")
                found = connection.recv(65536)
        while b"did not come" not in found and time.monotonic() - start_s < 20:
            with contextlib.suppress(TimeoutError):  # head and body may come apart
                if not (more := connection.recv(65536)):
                    break
                found += more
        assert found.startswith(b"HTTP/1.1 408"), found
        assert b'"message":"the body did not come within 1.5 s"' in found
        assert time.monotonic() - start_s < BODY_S + SLACK_S


def test_half_a_head_is_told_that_it_was_too_slow(server: Served) -> None:
    found = server.raw(head(server, "GET /health"), wait_s=HEAD_S + SLACK_S)
    assert found.startswith(b"HTTP/1.1 408")
    assert b'"message":"the head did not come within 1.5 s"' in found


def test_a_quick_client_is_answered_as_ever(server: Served) -> None:
    with server.client() as client:
        for _ in range(3):
            assert client.get("/health").status_code == 200
            time.sleep(HEAD_S / 2)


@pytest.mark.parametrize("data", [b"", b"GET /hea", b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n"])
def test_many_open_connections_do_not_keep_others_out(server: Served, data: bytes) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(FILES - 5):
            held.enter_context(connect(server, data))
        start_s = time.monotonic()
        answer = httpx2.get(f"http://{server.url}/health", timeout=20)
        assert answer.status_code == 200
        assert time.monotonic() - start_s < SLACK_S
    assert "Traceback" not in server.said


def test_connections_of_one_address_leave_room_for_others(server: Served) -> None:
    asked = head(server, "GET /health") + b"\r\n"
    elsewhere = ("127.0.0.2", 0)
    with contextlib.ExitStack() as held:
        for _ in range(FILES - 5):  # answered, and kept alive
            held.enter_context(connect(server, asked))
        other = held.enter_context(
            socket.create_connection((server.host, server.port), 20, source_address=elsewhere)
        )
        other.sendall(asked)
        assert other.recv(100).startswith(b"HTTP/1.1 200")


def test_a_client_that_does_not_take_its_answer_is_given_up(servers: dict[str, Served]) -> None:
    server = servers["sounds"]
    body = (
        b'{"input": "rain", "num_inference_steps": 1, "audio_length": 5.0, "n": 8, '
        b'"sample_rate": 48000}'
    )
    more = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((server.host, server.port))
        connection.sendall(head(server, "POST /v1/audio/generate", *more) + b"\r\n" + body)
        connection.settimeout(120)
        assert connection.recv(12) == b"HTTP/1.1 200"
        until_s = time.monotonic() + 3 * SEND_S + SLACK_S
        here = connection.getsockname()[1]
        while is_open(server, here):
            assert time.monotonic() < until_s
            time.sleep(0.1)


def is_open(server: Served, port: int) -> bool:
    """Whether the server still holds its side of a connection from a port."""
    table = Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()[1:]
    ours, theirs = f":{server.port:04X}", f":{port:04X}"
    return any(
        line.split()[1].endswith(ours)
        and line.split()[2].endswith(theirs)
        and line.split()[3] == "01"
        for line in table
    )


def test_a_stop_is_not_held_up_by_slow_clients(tmp_path: Path) -> None:
    with short("raters", tmp_path) as server, contextlib.ExitStack() as held:
        for _ in range(5):
            held.enter_context(connect(server, b"GET /hea"))
        start_s = time.monotonic()
        server.stop()
        assert time.monotonic() - start_s < HEAD_S + SLACK_S


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [(None, "{own}", 201), ("http://{own}", "{own}", 201), ("https://evil.example", "{own}", 403),
     ("null", "{own}", 403), (None, "evil.example", 421),
     ("http://evil.example", "evil.example", 421),
     (None, "localhost:{port}", 201)],
)  # fmt: skip
def test_pages_of_other_sites_take_no_place_in_a_listening_test(
    servers: dict[str, Served], origin: str | None, host: str, status: int
) -> None:
    server = servers["raters"]
    with server.client() as client:
        names = {"own": server.url, "port": str(server.port)}
        headers = {"Host": host.format(**names)}
        headers |= {"Origin": origin.format(**names)} if origin else {}
        answer = client.post("/v1/listening/tests/trees/raters", headers=headers)
        assert answer.status_code == status


def test_one_address_does_not_take_every_place_of_a_listening_test(
    servers: dict[str, Served],
) -> None:
    path = f"http://{servers['raters'].url}/v1/listening/tests/trees/raters"

    def join(address: str) -> int:
        with httpx2.Client(transport=httpx2.HTTPTransport(local_address=address)) as client:
            return client.post(path, timeout=30).status_code

    assert [join("127.0.0.3") for _ in range(25)] == [201] * 20 + [429] * 5
    assert join("127.0.0.4") == 201


def test_what_is_not_http_is_answered_in_our_form(server: Served) -> None:
    for data, code in (
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000, b"431"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
    ):
        found = server.raw(data)
        assert found.startswith(b"HTTP/1.1 " + code), found[:100]
        assert re.search(rb'\r\n\r\n\{"error":\{"message":"', found), found
        assert b"x-content-type-options: nosniff" in found.lower()
