"""What a remote judge is asked, where, and what counts as its answer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, field_validator, model_validator

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.rewards.audio_llm.model import FAMILIES
from resonate_audio.rewards.audio_llm.question import WORDINGS, Chat, Question, make_question
from resonate_audio.rewards.remote.transport import TransportConfig

ANY_CHAT = Chat(system=None, sound="", short_answers=("", ""))
"""Of a model whose family is not told."""


class RemoteConfig(TransportConfig):
    """Which servers, what they are asked, and what counts as an answer."""

    urls: tuple[str, ...] = Field(min_length=1)
    """Base URLs with their ``/v1``; all must serve the same weights."""
    model: str = Field(min_length=1)
    """As ``GET /v1/models`` lists it."""
    question: str = "paper"
    """``paper``, ``official``, or a text with ``{c}`` where the caption goes."""
    family: str | None = None
    """``model_type`` of the weights, as `FAMILIES` has it: which system turn they were trained
    with, and which spelling ``official`` counts."""
    system: str | None = None
    """A system turn of your own. With neither, none is sent, and the server's template may put
    one in."""
    audio_first: bool = False
    yes: tuple[str, ...] = ()
    no: tuple[str, ...] = ()
    """Spellings of the answers, instead of the question's; those that are one token count."""
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
    warn_below_mass: float = Field(0.5, ge=0, le=1)
    """Warn when a batch's mean of P(yes) + P(no) is lower."""
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

    @model_validator(mode="after")
    def _check_answers(self) -> RemoteConfig:
        if self.family is not None and self.family not in FAMILIES:
            raise ValueError(f"family {self.family} is none of {' '.join(FAMILIES)}")
        if bool(self.yes) != bool(self.no) or bool(self.yes_ids) != bool(self.no_ids):
            raise ValueError("give answers for both yes and no, or for neither")
        if set(self.yes) & set(self.no) or set(self.yes_ids) & set(self.no_ids):
            raise ValueError("an answer cannot be both yes and no")
        if self.question == "official" and self.family is None and not self.yes:
            raise ValueError(
                "question official counts one spelling of each answer, by family: add "
                "family=qwen2_5_omni or the like, or yes=Yes&no=No"
            )
        return self

    @property
    def asked(self) -> Question:
        """The question with the answers that count."""
        chat = FAMILIES[self.family].chat if self.family else ANY_CHAT
        question = make_question(self.question, chat)
        return replace(question, yes=self.yes, no=self.no) if self.yes else question

    @property
    def wording(self) -> str:
        """What is asked, with ``{c}`` where the caption goes."""
        return WORDINGS.get(self.question, self.question)

    @property
    def system_turn(self) -> str | None:
        """The system turn that is sent."""
        if self.system is None and self.family is not None:
            return FAMILIES[self.family].chat.system
        return self.system

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that change with whatever the model is told or what counts."""
        question = self.asked
        told = [self.system_turn, self.audio_first, self.wording, question.yes, question.no]
        content = json.dumps([told, self.yes_ids, self.no_ids])
        return hashlib.sha256(content.encode()).hexdigest()[:8]


def parse_remote_spec(spec: str) -> RemoteConfig:
    """Read a remote judge's settings from one line of text.

    ``http://host:8000/v1#model=Qwen/Qwen2.5-Omni-7B``
    ``http://a:8000/v1|http://b:8000/v1#model=judge&question=official&timeout_s=60&yes=Yes&no=No``

    URLs are divided by ``|``. After ``#`` come fields of `RemoteConfig`, divided by ``&``; lists
    by commas; a value that holds one of these signs writes it as in a URL (``%26``), and so do
    commas where the judge is one of several (``%2C``). The API key is no part of it: it is read
    from the environment variable that ``key_env`` names.

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
        return unquote(text).split(",")
    return unquote(text)
