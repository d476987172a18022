"""Several keys with names, kept as hashes, each with its own limit of requests."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import Field

from resonate_audio.core.config import FrozenConfig, parse_config
from resonate_audio.core.documents.json_text import read_object
from resonate_audio.core.errors import ConfigError, InputError
from resonate_audio.core.files import alone_in, atomic_path

NAME = re.compile(r"[A-Za-z0-9][\w.@-]{0,63}")
MINUTE_S = 60.0


class Key(FrozenConfig):
    """What a server knows of a key: all but the key."""

    name: str = Field(pattern=f"^{NAME.pattern}$")
    """Shown in logs."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """A key of 256 random bits cannot be guessed from its hash, so no slow hash is needed."""
    requests_per_minute: int | None = Field(None, ge=1, le=100_000)
    """More are refused with 429; None: no limit beyond the server's."""


class KeyFile(FrozenConfig):
    """The file that `resonate keys` writes and `resonate serve --keys` reads."""

    keys: tuple[Key, ...] = ()


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        ConfigError: it is not there, is not such a file, or names a key twice.
    """
    keys = parse_config(KeyFile, read_object(path, ConfigError), str(path)).keys
    names = [key.name for key in keys]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"{path}: {', '.join(sorted(twice))} is there twice")
    return keys


def write_keys(path: Path, keys: Sequence[Key]) -> None:
    """Write a file of keys that only its owner can read."""
    with atomic_path(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.chmod(0o600)
        text = json.dumps({"keys": [key.model_dump() for key in keys]}, indent=2)
        temporary.write_text(text + "\n", encoding="utf-8")


def add_key(path: Path, name: str, requests_per_minute: int | None = None) -> str:
    """Make a key, keep its hash in a file, and give it: it is told this once.

    Raises:
        InputError: the name is taken or is no name.
        OutputError: the file cannot be written.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r}: a key's name has letters, digits, . _ - @, at most 64")
    secret = f"rsn_{secrets.token_urlsafe(32)}"
    fields = {"name": name, "sha256": digest(secret), "requests_per_minute": requests_per_minute}
    key = parse_config(Key, fields, "key", InputError)
    with _held(path):
        keys = read_keys(path) if path.exists() else ()
        if any(other.name == name for other in keys):
            raise InputError(f"{path}: {name} has a key already; remove it first")
        write_keys(path, [*keys, key])
    return secret


def remove_key(path: Path, name: str) -> None:
    """Take a key out of a file.

    Raises:
        InputError: there is none of that name.
    """
    read_keys(path)  # no folder is made for a file that is not there
    with _held(path):
        keys = read_keys(path)
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            known = ", ".join(key.name for key in keys) or "none"
            raise InputError(f"{path}: no key {name}; there are {known}")
        write_keys(path, left)


def _held(path: Path) -> AbstractContextManager[None]:
    """Nobody else changes the file meanwhile."""
    return alone_in(path.parent, f".{path.name}.lock", wait=True)


def digest(secret: str) -> str:
    """SHA-256 of a key, in hexadecimal digits."""
    return hashlib.sha256(secret.encode("utf-8")).hexdigest()


def find_key(secret: str, keys: Sequence[Key]) -> Key | None:
    """The key that was given; every one is compared, in constant time."""
    given, found = digest(secret), None
    for key in keys:
        if hmac.compare_digest(given, key.sha256):
            found = key
    return found


class RequestLimits:
    """Requests of each key within the last minute; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[str, deque[float]] = {}

    def wait_s(self, key: Key, now_s: float | None = None) -> float:
        """Count a request; 0 if it may pass, else how long until one may."""
        if key.requests_per_minute is None:
            return 0.0
        now_s = time.monotonic() if now_s is None else now_s
        with self._lock:
            times = self._times.setdefault(key.name, deque())
            while times and times[0] <= now_s - MINUTE_S:
                times.popleft()
            if len(times) >= key.requests_per_minute:
                return times[0] + MINUTE_S - now_s
            times.append(now_s)
            return 0.0
