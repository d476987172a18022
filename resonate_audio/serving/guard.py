"""What every request passes first: key, origin, size; and the headers that every answer gets."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.errors import ApiError, error_response
from resonate_audio.serving.metrics import Metrics

log = logging.getLogger("resonate.serve")
RATERS = re.compile(r"/v1/listening/(session(/.*)?|tests/[^/]+(/raters)?)")
"""What raters call: they have tokens of their own."""
UPLOADS = "/v1/listening/tests"
MAX_UPLOAD_BYTES = 210_000_000
SAFE = {"GET", "HEAD", "OPTIONS"}
METHODS = SAFE | {"POST", "PUT", "PATCH", "DELETE"}


class Guard:
    """Refuses requests before they are read, and counts and logs what was answered."""

    def __init__(
        self, app: ASGIApp, config: ServeConfig, metrics: Metrics, headers: Mapping[str, str]
    ) -> None:
        """Wrap an app.

        Args:
            app: what is guarded.
            config: key, limits, origins.
            metrics: where answers are counted.
            headers: sent with every answer that has none of that name.
        """
        self._app, self._config, self._metrics = app, config, metrics
        self._headers = dict(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._headers, self._config)
        try:
            try:
                self._check(scope, exchange)
                await self._app(scope, exchange.receive, exchange.send)
            except ApiError as error:
                exchange.refusal = error
            if exchange.refusal is not None and not exchange.status:
                refusal, exchange.refusal = exchange.refusal, None
                await error_response(refusal)(scope, receive, exchange.send)
        finally:
            self._note(scope, exchange)

    def _check(self, scope: Scope, exchange: _Exchange) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        if self._config.api_key is None:
            check_host(headers.get("host", ""), self._config.hosts)
        if scope["method"] not in SAFE:
            check_origin(headers, self._config.cors_origins)
        is_open = not path.startswith(("/v1/", "/metrics")) or RATERS.fullmatch(path)
        if self._config.api_key is not None and not is_open and scope["method"] != "OPTIONS":
            check_key(headers, self._config.api_key.get_secret_value())
        exchange.check_length(headers.get("content-length"))

    def _note(self, scope: Scope, exchange: _Exchange) -> None:
        spent_s = time.monotonic() - exchange.start_s
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.count_request(method, exchange.status or 499, spent_s)
        shown = scope["path"][:200].encode("ascii", "backslashreplace").decode()
        log.info("%s %s %s %.0f ms", method, shown, exchange.status or "gone", 1000 * spent_s)


class _Exchange:
    """One request and its answer: counts what comes in, adds headers to what goes out."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[str, str],
        config: ServeConfig,
    ) -> None:
        self._receive, self._send, self._headers = receive, send, headers
        is_upload = scope["path"] == UPLOADS
        self._max_bytes = MAX_UPLOAD_BYTES if is_upload else config.max_body_bytes
        self._timeout_s = config.body_timeout_s
        self._num_bytes, self._is_complete = 0, False
        self.status = 0
        self.refusal: ApiError | None = None
        """Set while the body is read: answered in place of what the app makes of it."""
        self.start_s = time.monotonic()

    def check_length(self, told: str | None) -> None:
        """Refuse a body that says it is too long."""
        if told is not None and told.isdigit() and int(told[:18]) > self._max_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next part of the request, within its limits."""
        if self._is_complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._timeout_s)
        except TimeoutError as error:
            self.refusal = ApiError(408, f"the body did not come within {self._timeout_s:g} s")
            raise self.refusal from error
        if message["type"] == "http.request":
            self._num_bytes += len(message.get("body", b""))
            if self._num_bytes > self._max_bytes:
                self.refusal = self._too_large()
                raise self.refusal
            self._is_complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer; the first one gets our headers."""
        if self.refusal is not None and not self.status:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers.setdefault(name, value)
        await self._send(message)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"body: larger than {self._max_bytes:,} bytes", "body")


def check_key(headers: Headers, key: str) -> None:
    """Compare the key of a request in constant time.

    Raises:
        ApiError: 401, it is missing or another one.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else headers.get("xi-api-key", "")
    if not hmac.compare_digest(given.encode("utf-8"), key.encode("utf-8")):
        raise ApiError(
            401,
            "no valid key: send the header Authorization: Bearer KEY, or xi-api-key: KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def check_host(host: str, known: tuple[str, ...]) -> None:
    """Refuse a request that calls a server without key by a foreign name.

    Raises:
        ApiError: 421, the name is not one of ours.
    """
    name = host if host.endswith("]") else re.sub(r":\d+$", "", host)
    if name.lower() not in known:
        raise ApiError(421, "host: this server answers only to its own address", "host")


def check_origin(headers: Headers, allowed: tuple[str, ...]) -> None:
    """Refuse changes that another site's page asks for.

    Raises:
        ApiError: 403, the page's origin is neither the server itself nor allowed.
    """
    origin = headers.get("origin")
    if origin is None or origin in allowed:
        return
    if not origin.isascii() or urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise ApiError(403, "origin: pages of other sites may not do this", "origin")
