"""What a server may do and how much of it."""

from __future__ import annotations

import re

from pydantic import Field, SecretStr, field_validator

from resonate_audio.core.config import FrozenConfig, GivenPath
from resonate_audio.serving.keys import Key

NAME = re.compile(r"[A-Za-z0-9][\w.@/-]{0,199}", re.ASCII)
ADAPTER = re.compile(r"[A-Za-z0-9][\w.-]{0,49}", re.ASCII)
"""Names that a header of HTTP takes."""
LETTERS = "letters from A to Z, digits"
MEGABYTE = 1_000_000


class EdgeConfig(FrozenConfig):
    """Who may connect to a server, from where, how long they may take and how much send."""

    api_key: SecretStr | None = None
    """Without one, and without ``keys``, everybody who reaches the server may use it."""
    keys: tuple[Key, ...] = ()
    """Keys with names and limits, as `resonate keys` makes them; ``api_key`` is one without."""
    cors_origins: tuple[str, ...] = ()
    """Other sites whose pages may call this server, such as ``https://example.org``."""
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Names that requests may call the server by while it has no key: a page elsewhere whose
    name was made to point here (DNS rebinding) is refused. None given: any name."""
    max_body_mb: float = Field(1.0, gt=0)
    """Largest request, uploads of listening tests apart."""
    head_timeout_s: float = Field(10.0, gt=0)
    """How long the head of a request may take, from its connection or its first byte on."""
    body_timeout_s: float = Field(20.0, gt=0)
    """How long its body may take as a whole; each 10 kB that came give a second more."""
    send_timeout_s: float = Field(30.0, gt=0)
    """How long a client may take nothing of its answer, or less than 10 kB a second."""
    max_connections: int = Field(512, ge=8)
    """Open at once, and never more than the process may have files open; beyond that those that
    ask nothing are closed, the one that has waited longest first."""
    max_connections_per_address: int = Field(256, ge=4)
    """The same for one client's address, and never more than half of all."""
    shutdown_s: float = Field(30.0, ge=0)
    """How long open requests are finished for after a signal to stop."""

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[!-~]{8,200}", key.get_secret_value()):
            raise ValueError("expected 8 to 200 visible ASCII signs without spaces")
        return key

    @property
    def needs_key(self) -> bool:
        """Whether only those with a key may use the server."""
        return self.api_key is not None or bool(self.keys)

    @property
    def max_body_bytes(self) -> int:
        """The limit in bytes."""
        return int(self.max_body_mb * MEGABYTE)


class ServeConfig(EdgeConfig):
    """Settings of `resonate serve`."""

    home: GivenPath
    """Folder of jobs, made sounds and listening tests; made when it is not there."""
    models: dict[str, str] = Field(default_factory=lambda: {"nano": "nano"}, min_length=1)
    """Name that clients use → bundled name, folder or hub id; the first is the default."""
    adapters: dict[str, str] = Field(default_factory=dict)
    """Name that clients use → adapter file, ``FILE`` or ``FILE:weight``; each fits a model here."""
    devices: tuple[str, ...] = Field(default=("cpu",), min_length=1)
    """One worker each."""
    dtype: str | None = None
    """Number format of flow transformers; by default what the device does well."""
    runs: GivenPath | None = None
    """Folder of training runs that the studio shows."""
    memory_budget_mb: float = Field(8000.0, gt=0)
    """Estimated room of the models that stay loaded on one device."""
    preload: bool = False
    """Load models when the server starts, not when the first request wants them."""
    max_batch_rows: int = Field(16, ge=1, le=64)
    """Rows that are computed together."""
    max_queued_rows: int = Field(256, ge=1)
    """Rows that wait or are computed; more are refused with 429."""
    max_open_jobs: int = Field(100, ge=1)
    """Requests and jobs that wait or are computed."""
    max_duration_s: float = Field(60.0, gt=0)
    """Longest sound, where a model would make longer ones."""
    deadline_s: float = Field(120.0, gt=0)
    """How long a request may wait for its sounds; jobs have no such limit."""
    keep_jobs_s: float = Field(86_400.0, gt=0)
    """How long a finished job can be asked for; its sounds stay in the library."""
    max_sounds: int = Field(10_000, ge=1)
    """Sounds that the library keeps; the oldest go first."""

    @field_validator("models")
    @classmethod
    def _check_names(cls, models: dict[str, str]) -> dict[str, str]:
        for name in models:
            if not NAME.fullmatch(name):
                raise ValueError(f"model name {name!r}: expected {LETTERS}, . _ - @ and /")
        return models

    @field_validator("adapters")
    @classmethod
    def _check_adapters(cls, adapters: dict[str, str]) -> dict[str, str]:
        for name in adapters:
            if not ADAPTER.fullmatch(name):
                raise ValueError(f"adapter name {name!r}: expected {LETTERS}, . _ and -")
        return adapters
