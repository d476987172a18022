"""What a remote judge is asked, where, and what counts as its answer."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, field_validator

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.rewards.remote_transport import TransportConfig

QUESTIONS = {
    "paper": (
        "Does the audio contain the sound events described by the text: {c}? "
        "Please answer yes or no."
    ),
    "official": (
        "Does this audio contain the sound events described by the text: {c}? "
        "Please only answer yes or no, without other explanations."
    ),
}
YES = ("Yes", "yes", "YES", " Yes", " yes", " YES")
NO = ("No", "no", "NO", " No", " no", " NO")


class RemoteConfig(TransportConfig):
    """Which servers, what they are asked, and what counts as an answer."""

    urls: tuple[str, ...] = Field(min_length=1)
    """Base URLs with their ``/v1``; all must serve the same weights."""
    model: str = Field(min_length=1)
    """As ``GET /v1/models`` lists it."""
    question: str = Field("paper", validate_default=True)
    """A preset's name, or a text with ``{c}`` where the caption goes."""
    system: str | None = None
    """System turn; None sends none, which lets the server's chat template put its own."""
    audio_first: bool = False
    yes: tuple[str, ...] = Field(YES, min_length=1)
    no: tuple[str, ...] = Field(NO, min_length=1)
    """Spellings of the answers; those that are one token of the model count."""
    yes_ids: tuple[int, ...] = ()
    no_ids: tuple[int, ...] = ()
    """Token ids of the answers, instead of asking the server for them."""
    discover_ids: bool = True
    """Ask ``POST /tokenize`` (vLLM) for the ids; without ids, scores may be bounds."""
    top_logprobs: int = Field(20, ge=1)
    """Listed tokens, for servers that cannot be asked for ids; many refuse more than 20."""
    hidden_label: Literal["midpoint", "fail"] = "midpoint"
    """When a label is not listed: the middle of its bounds if they are close, or an error."""
    max_bound_width: float = Field(0.01, ge=0, le=1)
    """Widest bounds whose middle is taken."""
    min_mass: float = Field(0.0, ge=0, lt=1)
    """Refuse an answer that gives yes and no together no more than this probability."""
    key_env: str = "RESONATE_JUDGE_KEY"
    """Environment variable that holds the API key, when there is one."""

    @field_validator("urls")
    @classmethod
    def _check_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{url!r} is not a URL like http://host:8000/v1")
            if parts.username or parts.password or parts.query:
                raise ValueError(f"{parts.hostname}: give the key by key_env, not in the URL")
        return tuple(url.rstrip("/") for url in urls)

    @field_validator("question")
    @classmethod
    def _check_question(cls, question: str) -> str:
        template = QUESTIONS.get(question, question)
        if "{c}" not in template:
            raise ValueError(
                f"{question!r} is none of {' '.join(QUESTIONS)} and has no {{c}} for the caption"
            )
        return template


def parse_remote_spec(spec: str) -> RemoteConfig:
    """Read a remote judge's settings from one line of text.

    ``http://host:8000/v1#model=Qwen/Qwen2.5-Omni-7B``
    ``http://a:8000/v1|http://b:8000/v1#model=judge&question=official&timeout_s=60&yes=Yes&no=No``

    URLs are divided by ``|``. After ``#`` come fields of `RemoteConfig`, divided by ``&``; lists
    by commas; a value that holds one of these signs writes it as in a URL (``%26``). The API key
    is no part of it: it is read from the environment variable that ``key_env`` names.

    Raises:
        ConfigError: no URL, no model, or a field that is unknown or has a bad value.
    """
    urls, _, options = spec.partition("#")
    values: dict[str, Any] = {"urls": tuple(url.strip() for url in urls.split("|"))}
    for count, option in enumerate(filter(None, options.split("&")), 1):
        field, equals, text = option.partition("=")
        if not equals or field == "urls":
            # The option is not repeated here: it may be a key.
            raise ConfigError(f"remote judge: option {count} after # is not field=value")
        values[field] = _plain_value(field, text)
    return parse_config(RemoteConfig, values, "remote judge")


def _plain_value(field: str, text: str) -> str | list[str]:
    if field in ("yes", "no", "yes_ids", "no_ids"):
        return [unquote(item) for item in text.split(",")]
    return unquote(text)
