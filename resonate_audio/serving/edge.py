"""The outermost layer: connections. Deadlines for what clients send and take, and limits for each.

uvicorn waits for a request's head as long as its client likes, so a few hundred sockets that send
nothing close a server. Here every connection is in one of four states, and each has a deadline:

============  ====================================================================================
head          nothing or half a head came: ``head_timeout_s`` for the whole head
body          the app reads: ``body_timeout_s`` and a second for each 10 kB (`serving/guard.py`)
answer        the client takes it: at least 10 kB a second, looked at each ``send_timeout_s``
rest          answered, but the body goes on: ``LINGER_S``, then closed
============  ====================================================================================

A connection beyond the limits takes the place of the one that has waited longest without asking
anything; only where all are being answered it is refused with 503.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import sys
from pathlib import Path
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from resonate_audio.serving.config import EdgeConfig
from resonate_audio.serving.errors import ApiError, error_response
from resonate_audio.serving.guard import BYTES_PER_S
from resonate_audio.serving.pages import page_headers

LINGER_S = 2.0
"""How long the rest of a body that nobody reads is taken, so that its client sees the answer."""
SPARE_FILES = 48
"""Files that the server itself may open beside its connections: database, models, sounds."""
BACKLOG = 128
"""Connections that wait to be accepted; all of them are accepted at once."""
KEEP_ALIVE_S = 75
"""How long a connection may lie idle: a proxy keeps its own for a minute, and a request on one that
is closed at that moment would have no answer."""


class Doors:
    """The open connections of one server, by the address of their client."""

    def __init__(self, config: EdgeConfig, max_files: int) -> None:
        """Set the limits.

        Args:
            config: limits and deadlines.
            max_files: descriptors that the process may still open.
        """
        self.config = config
        self.most = max(4, min(config.max_connections, max_files - SPARE_FILES))
        self.most_each = max(2, min(config.max_connections_per_address, self.most // 2))
        self._open: dict[str, list[DoorProtocol]] = {}

    def enter(self, one: DoorProtocol) -> bool:
        """Take a connection in, if need be in the place of one that waits; False if there is none.

        The place is looked for among the connections of the same address first: who opens many
        pushes out its own.
        """
        own = self._open.setdefault(one.address, [])
        every = [other for others in self._open.values() for other in others]
        is_full = len(own) >= self.most_each
        if is_full or len(every) >= self.most:
            idle = sorted((o for o in (own if is_full else every) if o.is_idle), key=_patience)
            if not idle:
                self.leave(one)
                return False
            idle[0].push_out()
        self._open.setdefault(one.address, []).append(one)
        return True

    def leave(self, one: DoorProtocol) -> None:
        """A connection is gone."""
        own = self._open.get(one.address, [])
        if one in own:
            own.remove(one)
        if not own:
            self._open.pop(one.address, None)


class DoorProtocol(H11Protocol):
    """uvicorn's connection, with a deadline for each of its states."""

    def __init__(self, *args: Any, doors: Doors, **kwargs: Any) -> None:
        """Make one that belongs to ``doors``."""
        super().__init__(*args, **kwargs)
        self.doors = doors
        self.address = ""
        self.since_s = self.loop.time()
        """When it last began to wait."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._is_refused = False

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost if it is closed: its request has not come as a whole."""
        return self.is_waiting or (self.cycle.more_body and not self.cycle.response_started)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is here."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        self._wait_for_head()
        if not self.doors.enter(self):
            message = "the server is full; try again in 5 s"
            self.refuse(ApiError(503, message, code="full", headers={"Retry-After": "5"}))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self.doors.leave(self)
        for timer in (self._head_timer, self._rest_timer, self._send_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came: perhaps the first of a head, perhaps its last."""
        if self._is_refused:
            return
        super().data_received(data)
        if self._rest_timer is not None and self.conn.their_state is not h11.SEND_BODY:
            self._rest_timer = self._stop(self._rest_timer)
        if not self.is_waiting:
            self._head_timer = self._stop(self._head_timer)
        elif self._head_timer is None and self._rest_timer is None:
            self._wait_for_head()

    def on_response_complete(self) -> None:
        """An answer was sent: wait for the next request, or for the rest of this one's body."""
        self.since_s = self.loop.time()
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._rest_timer = self.loop.call_later(LINGER_S, self.push_out)

    def push_out(self) -> None:
        """Close now, whatever the client sends or takes."""
        self.doors.leave(self)
        self.transport.abort()

    def refuse(self, error: ApiError) -> None:
        """Answer without the app, in its form, and close."""
        self._is_refused = True
        response = error_response(error)
        headers = [(name.lower(), value) for name, value in response.raw_headers]
        headers += [(name.encode(), value.encode()) for name, value in page_headers().items()]
        head = h11.Response(status_code=error.status, headers=[*headers, (b"connection", b"close")])
        try:
            for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # an answer was under way already
            pass
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP, or too long a head of it."""
        told = getattr(sys.exception(), "error_status_hint", 400)
        status = told if told in (413, 414, 431) else 400
        words = {431: "its head is larger than 16 kB"}.get(status, "it is not valid HTTP/1.1")
        self.refuse(ApiError(status, f"the request cannot be read: {words}"))

    def pause_writing(self) -> None:
        """The client takes less than there is to send."""
        super().pause_writing()
        if self._send_timer is None:
            self._watch_sending(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has taken nearly all."""
        super().resume_writing()
        self._send_timer = self._stop(self._send_timer)

    def _should_upgrade(self) -> bool:
        return False  # there are no web sockets here, and uvicorn would log that each time

    def _wait_for_head(self) -> None:
        self.since_s = self.loop.time()
        wait_s = self.doors.config.head_timeout_s
        self._head_timer = self.loop.call_later(wait_s, self._give_up_head)

    def _give_up_head(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or not self.is_waiting:
            return
        if self.conn.our_state is h11.IDLE and any(self.conn.trailing_data[:1]):
            wait_s = self.doors.config.head_timeout_s
            self.refuse(ApiError(408, f"the head did not come within {wait_s:g} s"))
        else:
            self.push_out()

    def _watch_sending(self, last: int) -> None:
        """Look again after a while; give up a client that took less than the least."""
        wait_s = self.doors.config.send_timeout_s

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if last - left < min(last, wait_s * BYTES_PER_S):
                self.push_out()
            else:
                self._watch_sending(left)

        self._send_timer = self.loop.call_later(wait_s, look)

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def _patience(one: DoorProtocol) -> tuple[bool, float]:
    return not one.is_waiting, one.since_s


def run_app(app: ASGIApp, listening: socket.socket, config: EdgeConfig) -> None:
    """Serve an app on a socket until a signal; open requests are finished within ``shutdown_s``.

    Args:
        app: what answers.
        listening: bound, not yet accepting.
        config: limits and deadlines.
    """
    max_files = files_left()
    doors = Doors(config, max_files)
    settings = uvicorn.Config(
        app,
        http=cast(Any, functools.partial(DoorProtocol, doors=doors)),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=max(8, min(BACKLOG, SPARE_FILES // 2 if max_files < 2 * BACKLOG else BACKLOG)),
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(config.shutdown_s)),
    )
    uvicorn.Server(settings).run(sockets=[listening])


def files_left() -> int:
    """Descriptors that this process may still open; many where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return sys.maxsize
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    place = next((path for path in ("/proc/self/fd", "/dev/fd") if Path(path).is_dir()), None)
    return limit - (len(os.listdir(place)) if place else SPARE_FILES)
