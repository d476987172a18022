"""What every request passes first: name, key, origin, size, time; and what every answer gets.

Each server of ours stands behind one `Guard`, so no route has to remember: HEAD is answered
wherever GET is, refusals have one form whoever made them, a body has to come in time as a whole.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import math
import re
import time
import uuid
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resonate_audio.serving.config import EdgeConfig
from resonate_audio.serving.errors import ApiError, describe_status, error_response
from resonate_audio.serving.keys import RequestLimits, find_key
from resonate_audio.serving.metrics import Metrics

log = logging.getLogger("resonate.serve")
RATERS = re.compile(r"/v1/listening/(session(/.*)?|tests/[^/]+(/raters)?)")
"""What raters call: they have tokens of their own."""
UPLOADS = {
    "/v1/listening/tests": 210_000_000,
    "/v1/library": 50_000_000,
    **{
        f"/v1/audio/{kind}": 50_000_000
        for kind in ("vary", "reword", "replace", "extend", "loop", "finish")
    },
}
"""What takes sounds along, and how many bytes of them."""
BYTES_PER_S = 10_000
"""A body that comes faster than this is waited for beyond its time."""
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s\[\]:/@?#\\]+)(:\d{1,5})?")
"""A name or an address, and a port: what a Host header may hold (RFC 9110, sec. 7.2)."""
ANY_ADDRESS = "*"
"""Stands among known hosts for every address in numbers: no name that was turned is one."""
ABSOLUTE = re.compile(rb"(?i:https?)://([^/]+)(/.*)?", re.DOTALL)
"""The target of a request as proxies are asked, and every server may be."""
REQUEST_ID = re.compile(r"[\w.-]{1,64}")
SAFE = {"GET", "HEAD", "OPTIONS"}
METHODS = SAFE | {"POST", "PUT", "PATCH", "DELETE"}


class Guard:
    """Refuses requests before they are read, and counts and logs what was answered."""

    def __init__(
        self, app: ASGIApp, config: EdgeConfig, metrics: Metrics, headers: Mapping[str, str]
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
        self._limits = RequestLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = in_origin_form(scope)
        headers = self._headers | {"X-Request-ID": request_id(scope)}
        exchange = _Exchange(scope, receive, send, headers, self._config)
        inside = dict(scope, method="GET") if scope["method"] == "HEAD" else scope
        try:
            try:
                self._check(scope, exchange)
                await self._app(inside, exchange.receive, exchange.send)
            except ApiError as error:
                exchange.refusal = error
            if exchange.refusal is not None and not exchange.status:
                refusal, exchange.refusal = exchange.refusal, None
                await error_response(refusal)(scope, receive, exchange.send)
        finally:
            self._note(scope, exchange)

    def _check(self, scope: Scope, exchange: _Exchange) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        known = () if self._config.needs_key else self._config.hosts
        check_host(headers.get("host", ""), known)
        if scope["method"] not in SAFE:
            check_origin(headers, self._config.cors_origins)
        is_open = not path.startswith(("/v1/", "/metrics")) or RATERS.fullmatch(path)
        if self._config.needs_key and not is_open and scope["method"] != "OPTIONS":
            exchange.key = check_key(headers, self._config, self._limits)
        exchange.check_length(headers.get("content-length"))

    def _note(self, scope: Scope, exchange: _Exchange) -> None:
        spent_s = time.monotonic() - exchange.start_s
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.count_request(method, exchange.status or 499, spent_s)
        shown = ascii(scope["path"][:200])[1:-1]  # one line of plain signs, whatever was asked for
        status = exchange.status or "gone"
        fields = {"method": method, "path": shown, "status": status, "key": exchange.key}
        fields |= {"ms": round(1000 * spent_s), "request_id": exchange.request_id}
        fields = {"fields": {name: value for name, value in fields.items() if value}}
        log.info("%s %s %s %.0f ms", method, shown, status, 1000 * spent_s, extra=fields)


class _Exchange:
    """One request and its answer: counts what comes in, adds headers to what goes out."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[str, str],
        config: EdgeConfig,
    ) -> None:
        self._scope, self._receive, self._send, self._headers = scope, receive, send, headers
        uploaded = UPLOADS.get(scope["path"], 0) if scope["method"] == "POST" else 0
        self._max_bytes = max(uploaded, config.max_body_bytes)
        self._timeout_s = config.body_timeout_s
        self._num_bytes, self._is_complete, self._is_answered = 0, False, False
        self.status = 0
        self.key = ""
        """Name of the key that it came with."""
        self.request_id = headers["X-Request-ID"]
        self.refusal: ApiError | None = None
        """Set while the body is read: answered in place of what the app makes of it."""
        self.start_s = time.monotonic()

    def check_length(self, told: str | None) -> None:
        """Refuse a body that says it is too long."""
        if told is not None and told.isdigit() and int(told[:18]) > self._max_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next part of the request, within its limits.

        The whole body has ``body_timeout_s`` and a second for each 10 kB that came, so a client
        that sends a byte now and then is given up as one that sends none.
        """
        if self._is_complete:
            return await self._receive()
        until_s = self.start_s + self._timeout_s + self._num_bytes / BYTES_PER_S
        try:
            left_s = max(0.0, until_s - time.monotonic())
            message = await asyncio.wait_for(self._receive(), left_s)
        except TimeoutError:
            return self._give_up(
                ApiError(408, f"the body did not come within {self._timeout_s:g} s")
            )
        if message["type"] == "http.request":
            self._num_bytes += len(message.get("body", b""))
            if self._num_bytes > self._max_bytes:
                return self._give_up(self._too_large())
            self._is_complete = not message.get("more_body", False)
        return message

    def _give_up(self, refusal: ApiError) -> Message:
        """Refuse a body; where the answer has begun already, its client counts as gone."""
        if self.status:
            return {"type": "http.disconnect"}
        self.refusal = refusal
        raise refusal

    async def send(self, message: Message) -> None:
        """Send a part of the answer; the first one gets our headers."""
        if self._is_answered or (self.refusal is not None and not self.status):
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            if message["status"] >= 400 and not _is_json(headers):
                self._is_answered = True
                told = describe_status(message["status"], headers)
                await error_response(told)(self._scope, self._receive, self._send_first)
                return
            await self._send_first(message)
            if self._scope["method"] == "HEAD":
                self._is_answered = True
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        await self._send(message)

    async def _send_first(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers.setdefault(name, value)
        await self._send(message)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"body: larger than {self._max_bytes:,} bytes", "body")


def _is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").startswith("application/json")


def in_origin_form(scope: Scope) -> Scope:
    """A request for ``http://host/path`` as one for ``/path`` of ``host`` [RFC 9112, sec. 3.2.2].

    The host of the address counts, whatever the header says.
    """
    found = ABSOLUTE.fullmatch(scope.get("raw_path", b""))
    if found is None:
        return scope
    others = [(name, value) for name, value in scope["headers"] if name != b"host"]
    raw_path = found[2] or b"/"
    return dict(
        scope,
        path=unquote(raw_path.decode("ascii")),
        raw_path=raw_path,
        headers=[(b"host", found[1]), *others],
    )


def request_id(scope: Scope) -> str:
    """The name of a request in logs and in its answer: the client's or a proxy's, or a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def check_key(headers: Headers, config: EdgeConfig, limits: RequestLimits) -> str:
    """Compare the key of a request in constant time, and count the request.

    Returns:
        The name of the key; empty for the one without.

    Raises:
        ApiError: 401, it is missing or another one; 429, it asked too often.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else headers.get("xi-api-key", "")
    only = "" if config.api_key is None else config.api_key.get_secret_value()
    if hmac.compare_digest(given.encode("utf-8"), only.encode("utf-8")) and only:
        return ""
    key = find_key(given, config.keys)
    if key is None:
        raise ApiError(
            401,
            "no valid key: send the header Authorization: Bearer KEY, or xi-api-key: KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    if wait_s := limits.wait_s(key):
        raise ApiError(
            429,
            f"{key.name} may ask {key.requests_per_minute} times a minute",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(math.ceil(wait_s))},
        )
    return key.name


def check_host(host: str, known: tuple[str, ...]) -> None:
    """Refuse a request that calls a server by no name, or a server without key by a foreign one.

    Args:
        host: the request's header; empty where HTTP/1.0 sent none.
        known: names that are ours; empty where every name is.

    Raises:
        ApiError: 400, it is no name; 421, the name is not one of ours.
    """
    found = HOST.fullmatch(host)
    if host and found is None:
        raise ApiError(400, "host: not a name or an address", "host")
    if known and not (found and _is_known(found[1].lower(), known)):
        raise ApiError(
            421,
            "host: this server answers only to its own address, or to names it was started with",
            "host",
        )


def _is_known(name: str, known: tuple[str, ...]) -> bool:
    if name in known:
        return True
    if ANY_ADDRESS not in known:
        return False
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def check_origin(headers: Headers, allowed: tuple[str, ...]) -> None:
    """Refuse changes that another site's page asks for.

    Raises:
        ApiError: 403, the page's origin is neither the server itself nor allowed.
    """
    origin = headers.get("origin")
    if origin is None or origin in allowed:
        return
    try:
        place = urlsplit(origin).netloc.lower()
    except ValueError:  # such as http://[::1
        place = ""
    if not origin.isascii() or not place or place != headers.get("host", "").lower():
        raise ApiError(403, "origin: pages of other sites may not do this", "origin")
