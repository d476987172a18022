"""A hub on loopback that answers what huggingface_hub asks of the real one.

Files that the real hub keeps in its large storage are answered by a redirect to another host, with
their SHA-256 and size in the headers; small ones by a redirect to the hub's own cache. Both come
in byte ranges. Faults are put into the way of one file each.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

LARGE = 4096
"""Files from this size on lie in the large storage; real ones are told by .gitattributes."""


@dataclass
class Fault:
    """What goes wrong with a file, and how often."""

    kind: str
    """broken, short, changed, slow, gone or gated."""
    times: int = 1_000_000


@dataclass
class Hub:
    """Repositories in memory, what was asked, and what is to go wrong."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Content by repository and name."""
    faults: dict[str, Fault] = field(default_factory=dict)
    """By name of the file."""
    asked: list[tuple[str, str, str | None, bool]] = field(default_factory=list)
    """Method, path, Range, and whether a token came along."""
    before_large: Callable[[str], None] | None = None
    """Called with the name of a large file before its content is sent."""
    address: str = ""

    def commit(self, repo_id: str) -> str:
        """Of the only revision; it follows from the contents."""
        parts = [hashlib.sha1(content).hexdigest() for content in self.files[repo_id].values()]
        return hashlib.sha1("".join(parts).encode()).hexdigest()

    def fetched(self) -> list[str]:
        """Paths of the contents that were asked for, in order."""
        return [path for method, path, _, _ in self.asked if method == "GET"]

    def take_fault(self, name: str, *kinds: str) -> str | None:
        """The fault of a file, one less of it from now on."""
        fault = self.faults.get(name)
        if fault is None or fault.kind not in kinds or not fault.times:
            return None
        fault.times -= 1
        return fault.kind


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = urlsplit(self.path).path
        has_token = "authorization" in self.headers
        self.hub.asked.append((self.command, path, self.headers.get("Range"), has_token))
        with suppress(ConnectionError):
            for pattern, answer in self._ROUTES:
                found = re.fullmatch(pattern, path)
                if found:
                    answer(self, with_body, **found.groupdict())
                    return
            self._send(404, b"", with_body)

    def _resolve(self, with_body: bool, repo: str, revision: str, name: str) -> None:
        files = self.hub.files.get(repo)
        if files is None:
            self._send(401, b"", with_body, {"X-Error-Code": "RepoNotFound"})
            return
        if self.hub.take_fault(name, "gated"):
            self._send(401, b"", with_body, {"X-Error-Code": "GatedRepo"})
            return
        commit = self.hub.commit(repo)
        if revision not in ("main", commit):
            self._send(404, b"", with_body, {"X-Error-Code": "RevisionNotFound"})
            return
        about = {"X-Repo-Commit": commit}
        if name not in files or self.hub.take_fault(name, "gone"):
            self._send(404, b"", with_body, about | {"X-Error-Code": "EntryNotFound"})
            return
        content = files[name]
        if len(content) < LARGE:
            place = f"/api/resolve-cache/models/{repo}/{commit}/{name}"
            self._send(307, b"", with_body, about | {"Location": place, "ETag": _quoted(content)})
            return
        digest = hashlib.sha256(content).hexdigest()
        port = urlsplit(self.hub.address).port
        self._send(302, b"", with_body, about | {
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{digest}"',
            "Location": f"http://localhost:{port}/large/{digest}/{repo}/{name}",
        })  # fmt: skip

    def _small(self, with_body: bool, repo: str, commit: str, name: str) -> None:
        content = self.hub.files[repo][name]
        about = {"X-Repo-Commit": commit, "ETag": _quoted(content)}
        self._send(200, content, with_body, about)

    def _large(self, with_body: bool, digest: str, repo: str, name: str) -> None:
        content = self.hub.files[repo][name]
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        about = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if "Range" in self.headers:
            about["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.hub.before_large is not None:
            self.hub.before_large(name)
        fault = self.hub.take_fault(name, "broken", "short", "changed", "slow")
        if fault == "changed":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if fault == "short":
            content = content[: len(content) // 2]
        status = 206 if "Range" in self.headers else 200
        self._send(status, content[start:], with_body, about, fault)

    def _revision(self, with_body: bool, repo: str, revision: str) -> None:
        files = self.hub.files.get(repo)
        if files is None:
            self._send(401, b"", with_body, {"X-Error-Code": "RepoNotFound"})
            return
        names = [{"rfilename": name} for name in files]
        body = {"id": repo, "modelId": repo, "sha": self.hub.commit(repo), "siblings": names}
        self._send(200, json.dumps(body).encode(), with_body)

    def _tree(self, with_body: bool, repo: str, revision: str) -> None:
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": _quoted(content)[1:-1]}
            for name, content in self.hub.files[repo].items()
        ]
        self._send(200, json.dumps(entries).encode(), with_body)

    def _send(
        self,
        status: int,
        body: bytes,
        with_body: bool,
        headers: dict[str, str] | None = None,
        fault: str | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not with_body:
            return
        if fault == "broken":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return
        pieces = 20 if fault == "slow" else 1
        step = max(1, -(-len(body) // pieces))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            if fault == "slow":
                self.wfile.flush()
                time.sleep(0.05)

    _ROUTES = (
        (r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)", _resolve),
        (r"/api/resolve-cache/models/(?P<repo>[^/]+/[^/]+)/(?P<commit>[^/]+)/(?P<name>.+)", _small),
        (r"/large/(?P<digest>[^/]+)/(?P<repo>[^/]+/[^/]+)/(?P<name>.+)", _large),
        (r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)", _revision),
        (r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)", _tree),
    )


def _quoted(content: bytes) -> str:
    return f'"{hashlib.sha1(content).hexdigest()}"'


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve the hub on a free port of loopback."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, hub: Hub, home: Path) -> None:
    """Point huggingface_hub of this process to a hub and to an empty cache."""
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(f"{constants}.HF_ASSETS_CACHE", str(home / "assets"))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)


def variables(hub: Hub, home: Path) -> dict[str, str]:
    """The same for another process."""
    return {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
