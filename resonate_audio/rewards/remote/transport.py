"""Send requests to several servers: bounded, retried, and never silent about a failure."""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import NoAnswerError, RewardError
from resonate_audio.core.proxies import through_proxy

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

OK, TOO_MANY_REQUESTS, SERVER_ERROR, NOT_IMPLEMENTED = 200, 429, 500, 501
LONGEST_REST_S = 1e12
MAX_REPLY_BYTES = 1 << 24
"""Of a reply with a judgement, which has thousands at most."""
MESSAGE_BYTES = 10_000
MESSAGE_CHARACTERS = 200
"""How much of a server's own words goes into an error."""


class Refused(RewardError):
    """A server understood the request and said no; asking again would not help."""


class TransportConfig(FrozenConfig):
    """How many requests at once, how long to wait, how often to try again."""

    concurrency: int = Field(16, gt=0)
    """Requests under way at once, over all URLs, event loops and threads."""
    timeout_s: float = Field(120.0, gt=0)
    """One request from start to end; a later reply counts as a failure."""
    connect_timeout_s: float = Field(10.0, gt=0)
    retries: int = Field(5, ge=0)
    """Further tries of a request that failed by 429, 5xx, timeout or connection."""
    backoff_s: float = Field(0.5, gt=0)
    """A URL rests this long after a failure, twice as long after the next in a row, …"""
    max_wait_s: float = Field(60.0, gt=0)
    """Longest rest; a server that asks for more, and no other URL to go to, is an error."""
    seed: int = 0
    """Of the jitter, a factor of 0.5 to 1.5 on each rest; give each process its own."""


@dataclass(frozen=True)
class Endpoint:
    """One URL and how it has fared."""

    url: str
    num_requests: int = 0
    num_failures: int = 0
    failures_in_a_row: int = 0
    """Failures of requests that were under way together count once."""
    failed_at_s: float = 0.0
    rests_until_s: float = 0.0
    """On the clock of ``time.monotonic``."""


@dataclass(frozen=True)
class TransportStats:
    """What the requests so far have cost."""

    num_requests: int
    num_retries: int
    mean_latency_s: float
    """Of the requests that were answered, waiting for a place not counted."""
    max_latency_s: float
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    url: str
    body: bytes


@dataclass(frozen=True)
class _Failure:
    """Why a request got no answer, and how long the server wants to be left alone."""

    cause: str
    retry_after_s: float = 0.0
    final: bool = False
    """The server said no, and would say so again."""


class Places:
    """A bound on requests under way that holds across event loops and threads."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[Future[None]] = deque()
        self._lock = threading.Lock()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold one place, first come first served."""
        ticket: Future[None] = Future()
        with self._lock:
            self._waiting.append(ticket)
            self._call_next()
        try:
            await asyncio.wrap_future(ticket)
            yield
        finally:
            # Who is cancelled while waiting has no place to give back, unless it was called in
            # the same moment: its ticket is then past cancelling.
            with self._lock:
                if not ticket.cancel():
                    self._free += 1
                self._call_next()

    def _call_next(self) -> None:
        while self._free and self._waiting:
            ticket = self._waiting.popleft()
            if ticket.set_running_or_notify_cancel():
                self._free -= 1
                ticket.set_result(None)


class Transport:
    """Posts JSON to whichever of several servers is up.

    URLs take turns. One that failed rests, longer each time in a row, and its requests go to the
    others meanwhile. All state may be used from several event loops and threads; connections
    live no longer than one ``connect`` block, so there is nothing to close afterwards.
    """

    def __init__(
        self, urls: tuple[str, ...], config: TransportConfig, api_key: str | None = None
    ) -> None:
        self._endpoints = [Endpoint(url) for url in urls]
        self._config = config
        self._api_key = api_key
        self._places = Places(config.concurrency)
        self._jitter = random.Random(config.seed)
        self._lock = threading.Lock()
        self._turn = 0
        self._num_retries = 0
        self._num_answered = 0
        self._total_latency_s = 0.0
        self._max_latency_s = 0.0

    @property
    def stats(self) -> TransportStats:
        """Counts so far."""
        with self._lock:
            endpoints = tuple(self._endpoints)
            return TransportStats(
                num_requests=sum(endpoint.num_requests for endpoint in endpoints),
                num_retries=self._num_retries,
                mean_latency_s=self._total_latency_s / max(self._num_answered, 1),
                max_latency_s=self._max_latency_s,
                endpoints=endpoints,
            )

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncClient]:
        """Connections for the requests of one batch."""
        import httpx2

        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        try:
            client = httpx2.AsyncClient(
                headers=headers,
                verify=self._certificates,
                timeout=httpx2.Timeout(None, connect=self._config.connect_timeout_s),
                limits=httpx2.Limits(max_connections=self._config.concurrency),
            )
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            url = self._endpoints[0].url
            proxy = through_proxy(url) or "; see the variables for proxies and certificates"
            told = f"{url}: cannot connect ({self._one_line(str(error))}){proxy}"
            raise NoAnswerError(told) from error
        async with client:
            yield client

    async def post(self, client: AsyncClient, path: str, body: bytes, what: str) -> Reply:
        """Post until a server answers.

        Args:
            client: from ``connect``.
            path: what comes after the URL; ``../`` climbs out of its last part.
            body: JSON.
            what: what the request is for, in errors ("row 3").

        Raises:
            Refused: a server said no (4xx but 429); names the URL.
            RewardError: no try succeeded; names the last URL and what went wrong there.
        """
        url = cause = ""
        async with self._places.one():
            for attempt in range(self._config.retries + 1):
                with self._lock:
                    self._num_retries += attempt > 0
                index = await self._ready_endpoint(what)
                url = self._endpoints[index].url
                answer = await self._try(client, index, f"{url}/{path}", body)
                if isinstance(answer, bytes):
                    return Reply(url, answer)
                cause = answer.cause
                if answer.final:
                    raise Refused(
                        f"{url}: refuses {what}: {cause}; "
                        "see the URL (…/v1), the model's name and the key"
                    )
        raise NoAnswerError(
            f"{url}: {what} got no answer in {self._config.retries + 1} tries; "
            f"the last: {cause}; see whether the judge is up{through_proxy(url)}"
        )

    async def _ready_endpoint(self, what: str) -> int:
        """The next URL in turn that does not rest; waits while all do."""
        while True:
            with self._lock:
                count = len(self._endpoints)
                turns = [(self._turn + step) % count for step in range(count)]
                index = min(turns, key=lambda turn: max(0.0, self._rest_s(turn)))
                rest_s = self._rest_s(index)
                if rest_s <= 0.0:
                    self._turn = index + 1
                    return index
            if rest_s > self._config.max_wait_s:
                raise NoAnswerError(
                    f"{self._endpoints[index].url}: {what} got no answer: the server asks to wait "
                    f"{rest_s:.0f} s, more than max_wait_s={self._config.max_wait_s:g}; add a URL"
                )
            await asyncio.sleep(rest_s)

    def _rest_s(self, index: int) -> float:
        return self._endpoints[index].rests_until_s - time.monotonic()

    async def _try(
        self, client: AsyncClient, index: int, url: str, body: bytes
    ) -> bytes | _Failure:
        from httpx2 import RequestError

        answer: bytes | _Failure
        start_s = time.monotonic()
        try:
            async with asyncio.timeout(self._config.timeout_s):
                async with client.stream("POST", url, content=body) as response:
                    answer = self._read(response, await _body_of(response))
        except TimeoutError:
            answer = _Failure(f"no reply in {self._config.timeout_s:g} s")
        except RequestError as error:
            answer = _Failure(f"{type(error).__name__} ({self._one_line(str(error))})")
        self._note(index, answer, start_s)
        return answer

    def _read(self, response: Response, body: bytes) -> bytes | _Failure:
        status = response.status_code
        if status == OK and len(body) > MAX_REPLY_BYTES:
            return _Failure(
                f"a reply of over {MAX_REPLY_BYTES:,} bytes is none of a judge", final=True
            )
        if status == OK:
            return body
        broken = status >= SERVER_ERROR and status != NOT_IMPLEMENTED
        words = body[:MESSAGE_BYTES].decode("utf-8", "replace")  # of any charset
        return _Failure(
            f"{status} {response.reason_phrase} ({self._one_line(words)})",
            retry_after_s(response.headers.get("Retry-After", "")),
            final=not broken and status != TOO_MANY_REQUESTS,
        )

    def _one_line(self, text: str) -> str:
        """A server's words without line breaks, and without the key should it repeat that."""
        if self._api_key:
            text = text.replace(self._api_key, "***")
        return " ".join(text.split())[:MESSAGE_CHARACTERS]

    def _note(self, index: int, answer: bytes | _Failure, start_s: float) -> None:
        now_s = time.monotonic()
        with self._lock:
            endpoint = self._endpoints[index]
            endpoint = replace(endpoint, num_requests=endpoint.num_requests + 1)
            if isinstance(answer, bytes):
                endpoint = replace(endpoint, failures_in_a_row=0)
                self._num_answered += 1
                self._total_latency_s += now_s - start_s
                self._max_latency_s = max(self._max_latency_s, now_s - start_s)
            elif answer.final:
                endpoint = replace(endpoint, num_failures=endpoint.num_failures + 1)
            else:
                endpoint = self._rested(endpoint, answer, start_s, now_s)
            self._endpoints[index] = endpoint

    def _rested(
        self, endpoint: Endpoint, failure: _Failure, start_s: float, now_s: float
    ) -> Endpoint:
        in_a_row = endpoint.failures_in_a_row + (start_s >= endpoint.failed_at_s)
        backoff_s = self._config.backoff_s * 2.0 ** min(in_a_row - 1, 30)
        backoff_s = min(backoff_s * self._jitter.uniform(0.5, 1.5), self._config.max_wait_s)
        until_s = now_s + max(backoff_s, failure.retry_after_s)
        return replace(
            endpoint,
            num_failures=endpoint.num_failures + 1,
            failures_in_a_row=in_a_row,
            failed_at_s=now_s,
            rests_until_s=max(endpoint.rests_until_s, until_s),
        )

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        """Read once: it takes longer than a request to a server nearby."""
        import httpx2

        return httpx2.create_ssl_context()


async def _body_of(response: Response) -> bytes:
    """What is read of a reply: one part more than it may have, at most."""
    most = MAX_REPLY_BYTES if response.status_code == OK else MESSAGE_BYTES
    body = bytearray()
    async with aclosing(response.aiter_bytes(MESSAGE_BYTES)) as parts:
        async for part in parts:
            body += part
            if len(body) > most:
                break
    return bytes(body)


def retry_after_s(header: str) -> float:
    """Seconds that a Retry-After header asks for, as a number or as a date; 0 when it says nothing.

    [RFC 9110, sec. 10.2.3]
    """
    try:
        asked_s = float(header)
    except ValueError:
        asked_s = _until_s(header)
    return min(max(0.0, asked_s), LONGEST_REST_S) if asked_s == asked_s else 0.0


def _until_s(date: str) -> float:
    try:
        until = parsedate_to_datetime(date)
        until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
        return (until - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):  # no date, or beyond the calendar
        return 0.0
