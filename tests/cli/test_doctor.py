"""`resonate doctor`, check by check."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from resonate_audio.audio.io import FORMATS
from resonate_audio.cli.doctor import (
    check_device,
    check_disk,
    check_hub,
    check_libsndfile,
    check_versions,
)


class Answering(BaseHTTPRequestHandler):
    """A hub that is there."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    yield
    server.shutdown()
    server.server_close()


def test_versions_name_what_decides_the_sound() -> None:
    finding = check_versions()
    assert finding.verdict == "ok"
    assert "torch 2" in finding.detail
    assert "resonate-audio 0" in finding.detail


def test_every_audio_format_works_here() -> None:
    finding = check_libsndfile()
    assert finding.verdict == "ok"
    assert all(suffix in finding.detail for suffix in FORMATS)


def test_the_device_is_named_with_its_threads() -> None:
    assert "threads" in check_device().detail


def test_disk_space_is_given_in_gigabytes() -> None:
    assert "GB free here" in check_disk().detail


def test_a_hub_that_answers_is_ok(hub: None) -> None:
    assert check_hub().verdict == "ok"


def test_no_hub_is_a_note_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    finding = check_hub()
    assert finding.verdict == "note"
    assert "not reachable" in finding.detail
