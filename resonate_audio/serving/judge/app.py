"""A judge behind the wire form of OpenAI's chat completions, as remote judges are asked.

The question's text is turned back into its caption and the judge scores the sound for it. The
score and its parts stand in the field ``resonate_score`` of the reply, whatever numbers they are;
a score p from 0 to 1 is told to other clients, too, by log-probabilities of "yes" and "no" with
P(yes) / (P(yes) + P(no)) = p. Rows that wait together and are of one length are scored together.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from fastapi import FastAPI, Response
from pydantic import BaseModel, Field, model_validator

from resonate_audio.core.errors import AudioError, RewardError
from resonate_audio.core.text import check_encodable
from resonate_audio.core.types import Audio, Rewards, Waveform
from resonate_audio.rewards.audio_llm.question import CAPTION, NO, WORDINGS, YES
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.remote.answer import ID_PREFIX, LEAST_LOGPROB, log_odds_of
from resonate_audio.serving.config import MEGABYTE, ServeConfig
from resonate_audio.serving.errors import ApiError, answer_errors, without_folders
from resonate_audio.serving.guard import Guard
from resonate_audio.serving.metrics import METRICS_TYPE, Metrics
from resonate_audio.serving.pages import page_headers
from resonate_audio.serving.uploads import decode_upload

log = logging.getLogger("resonate.serve")
MAX_SOUND_MB, MAX_SOUND_S, MAX_CAPTION = 20.0, 60.0, 2000
BATCH_ROWS = 8
SPELLINGS = (*YES, *NO)
FIRST_ID = 100
"""Token id of the first spelling; the others follow."""
OTHER_ID = 1
ODDS_SLACK = 1e-4
"""A judge's own log odds are told where their probability is the score to this."""


class InputAudio(BaseModel):
    """A sound file in base64."""

    data: str
    format: str = "wav"


class Part(BaseModel):
    """One part of a turn: the question, or the sound."""

    type: Literal["text", "input_audio"]
    text: str | None = None
    input_audio: InputAudio | None = None


class Turn(BaseModel):
    """One turn of a chat."""

    role: str
    content: str | list[Part]


class ChatRequest(BaseModel):
    """What is read of a chat completion; other settings are those of OpenAI and change nothing.

    Clients may send a setting with nothing in it: null is as good as absent.
    """

    model: str
    messages: list[Turn] = Field(min_length=1, max_length=10)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=1000)
    logprob_token_ids: list[int] | None = Field(None, max_length=1000)
    stream: Literal[False] = False

    @model_validator(mode="before")
    @classmethod
    def _leave_out_null(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}


class TokenizeRequest(BaseModel):
    """vLLM's question how a text is split."""

    model: str
    prompt: str = Field(max_length=MAX_CAPTION)


@dataclass(frozen=True)
class Verdict:
    """A judge's answer about one sound."""

    total: float
    parts: Mapping[str, float] = field(default_factory=dict)
    mass: float = 1.0
    """Probability of yes and no together, where the judge tells; else 1."""
    log_odds: float | None = None
    """Of a total from 0 to 1; None of any other, which cannot be told as P(yes)."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A sound and its caption that wait for the judge."""

    audio: Audio
    caption: str
    answer: asyncio.Future[Verdict]

    @property
    def kind(self) -> tuple[int, int]:
        """Sounds of one kind can be scored together."""
        return self.audio.sample_rate_hz, len(self.audio.samples)


class Bench:
    """The sounds that wait for one judge."""

    def __init__(self, judge: Reward, max_waiting: int, metrics: Metrics) -> None:
        self._judge, self._max_waiting, self._metrics = judge, max_waiting, metrics
        self._waiting: list[Asked] = []
        self._news = asyncio.Event()

    @property
    def num_waiting(self) -> int:
        """Sounds that the judge has not begun with."""
        return len(self._waiting)

    async def ask(self, audio: Audio, caption: str) -> Verdict:
        """Wait for the judge's answer.

        Raises:
            ApiError: too many wait already, or the judge gives no answer.
        """
        if len(self._waiting) >= self._max_waiting:
            message = f"{len(self._waiting)} sounds wait for the judge; try again in 1 s"
            raise ApiError(429, message, code="queue_full", headers={"Retry-After": "1"})
        asked = Asked(audio, caption, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self._news.set()
        return await asked.answer

    async def work(self) -> None:
        """Score what waits, until cancelled."""
        while True:
            await self._news.wait()
            self._waiting = [one for one in self._waiting if not one.answer.done()]
            if not self._waiting:
                self._news.clear()
                continue
            kind = self._waiting[0].kind
            rows = [one for one in self._waiting if one.kind == kind][:BATCH_ROWS]
            self._waiting = [one for one in self._waiting if one not in rows]
            await self._score(rows)

    async def _score(self, rows: Sequence[Asked]) -> None:
        samples = torch.stack([torch.from_numpy(one.audio.samples) for one in rows])
        audio = Waveform(samples, rows[0].audio.sample_rate_hz)
        verdicts: Sequence[Verdict | ApiError]
        began_s = time.monotonic()
        try:
            rewards = await self._judge.score(audio, [one.caption for one in rows])
            verdicts = [read_verdict(rewards, row) for row in range(len(rows))]
        except RewardError as error:
            if len(rows) > 1:  # one of them may be to blame, and the others are not
                for one in rows:
                    await self._score([one])
                return
            verdicts = [ApiError(422, without_folders(f"{self._judge.name}: {error}"))]
        except Exception:
            log.exception("the judge failed")
            verdicts = [ApiError(500, "the judge failed; the server's log says why")] * len(rows)
        self._metrics.count_batch(len(rows), time.monotonic() - began_s)
        for one, verdict in zip(rows, verdicts, strict=True):
            self._metrics.count_task("failed" if isinstance(verdict, ApiError) else "completed")
            if one.answer.done():
                continue
            if isinstance(verdict, ApiError):
                one.answer.set_exception(verdict)
            else:
                one.answer.set_result(verdict)


def read_verdict(rewards: Rewards, row: int) -> Verdict:
    """What a judge gave one row, and how to tell it as P(yes) where it is a probability."""
    total = float(rewards.total[row])
    parts = own_parts({name: float(part[row]) for name, part in rewards.parts.items()})
    if not 0 <= total <= 1:
        return Verdict(total, parts)
    log_odds = parts.get("log_odds")
    # Those of a weighted judge, or of one of several, are not the total's.
    if log_odds is None or abs(math.exp(-_softplus(-log_odds)) - total) > ODDS_SLACK:
        return Verdict(total, parts, log_odds=log_odds_of(total))
    return Verdict(total, parts, min(1.0, parts.get("answer_mass", 1.0)), log_odds)


def own_parts(parts: Mapping[str, float]) -> dict[str, float]:
    """A single judge's parts by its own names: an ensemble around it calls them judge/part."""
    label = next(iter(parts), "")
    inside = {name: value for name, value in parts.items() if name != label}
    if not all(name.startswith(f"{label}/") for name in inside):
        return dict(parts)
    return {name.removeprefix(f"{label}/"): value for name, value in inside.items()}


def create_judge_app(judge: Reward, name: str, config: ServeConfig) -> FastAPI:
    """An app that answers as a remote audio LLM does.

    Args:
        judge: its scores may be any finite numbers.
        name: what clients call the model.
        config: key, limits.
    """
    metrics = Metrics()
    bench = Bench(judge, config.max_queued_rows, metrics)
    app = FastAPI(
        title="Resonate Audio judge",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(bench),
    )
    answer_errors(app)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest) -> dict[str, Any]:
        """Score the sound of the last turn for the caption in its question."""
        check_model(body.model, name)
        question, sound = read_turn(body.messages[-1])
        audio = await asyncio.to_thread(decode_sound, sound)
        verdict = await bench.ask(audio, find_caption(question))
        return complete(name, verdict, list_tokens(verdict, body.logprob_token_ids))

    @app.post("/tokenize")
    def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        """Ids of the spellings of yes and no; any other text is more than one token."""
        check_model(body.model, name)
        known = body.prompt in SPELLINGS
        tokens = [FIRST_ID + SPELLINGS.index(body.prompt)] if known else [OTHER_ID, OTHER_ID]
        return {"count": len(tokens), "max_model_len": MAX_CAPTION, "tokens": tokens}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        """The judge as the only model."""
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "resonate"}]
        return {"object": "list", "data": data}

    @app.get("/health")
    def health() -> dict[str, str]:
        """200 while the server runs."""
        return {"status": "ok"}

    @app.get("/ready")
    def ready() -> dict[str, str]:
        """200 as soon as the server runs: the judge is in memory before that."""
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response)
    def show_metrics() -> Response:
        """Counters in Prometheus' text form."""
        gauges = {"queued_sounds": float(bench.num_waiting)}
        return Response(metrics.render(gauges), media_type=METRICS_TYPE)

    largest_mb = max(config.max_body_mb, MAX_SOUND_MB * 4 / 3 + 1)
    guarded = config.model_copy(update={"max_body_mb": largest_mb})
    app.add_middleware(Guard, config=guarded, metrics=metrics, headers=page_headers())
    return app


def _lifespan(bench: Bench) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(bench.work())
        try:
            yield
        finally:
            work.cancel()

    return lifespan


def check_model(given: str, name: str) -> None:
    """Refuse another model's name, as OpenAI's servers do.

    Raises:
        ApiError: 404.
    """
    if given != name:
        message = f"model: {given[:100]!r} is not served here; there is {name}"
        raise ApiError(404, message, "model", "model_not_found")


def read_turn(turn: Turn) -> tuple[str, InputAudio]:
    """The question and the sound of a turn.

    Raises:
        ApiError: one is missing, or there are several.
    """
    parts = [] if isinstance(turn.content, str) else turn.content
    texts = [part.text for part in parts if part.type == "text" and part.text is not None]
    sounds = [part.input_audio for part in parts if part.type == "input_audio" and part.input_audio]
    if len(texts) != 1 or len(sounds) != 1:
        raise ApiError(
            422, "messages: expected one text and one input_audio in the last turn", "messages"
        )
    return texts[0], sounds[0]


def decode_sound(sound: InputAudio) -> Audio:
    """Decode a sound within limits of size and length.

    Raises:
        ApiError: not base64, not audio, too large or too long.
    """
    field = "input_audio.data"
    if len(sound.data) > MAX_SOUND_MB * MEGABYTE * 4 / 3 + 4:
        raise ApiError(413, f"{field}: larger than {MAX_SOUND_MB:g} MB", field)
    try:
        return decode_upload(base64.b64decode(sound.data, validate=True), field, MAX_SOUND_S)
    except (binascii.Error, ValueError) as error:
        raise ApiError(422, f"{field}: not base64 ({error})", field) from error
    except AudioError as error:
        raise ApiError(422, str(error), field) from error


def find_caption(question: str) -> str:
    """The caption in a question of ours.

    Raises:
        ApiError: it is asked in other words, or is no text.
    """
    for wording in WORDINGS.values():
        before, _, after = wording.partition(CAPTION)
        if question.startswith(before) and question.endswith(after):
            caption = question[len(before) : len(question) - len(after)].strip()
            try:
                check_encodable(caption)
            except ValueError as error:
                raise ApiError(422, f"messages: the caption {error}", "messages") from error
            if 0 < len(caption) <= MAX_CAPTION:
                return caption
    raise ApiError(
        422,
        f"messages: expected the question {' or '.join(WORDINGS)} with a caption of 1 to "
        f"{MAX_CAPTION} signs",
        "messages",
    )


def list_tokens(verdict: Verdict, ids: Sequence[int] | None) -> list[dict[str, Any]]:
    """Tokens with log-probabilities: those asked for by id, else every spelling.

    Raises:
        ApiError: the score is a probability, and no token was asked for that means yes or no.
    """
    log_odds = verdict.log_odds
    if log_odds is None:
        return []
    asked = range(FIRST_ID, FIRST_ID + len(SPELLINGS)) if ids is None else ids
    known = [number for number in asked if 0 <= number - FIRST_ID < len(SPELLINGS)]
    yes = [number for number in known if SPELLINGS[number - FIRST_ID] in YES]
    if not known:
        raise ApiError(422, "logprob_token_ids: none of them is yes or no", "logprob_token_ids")
    counts = {True: len(yes), False: len(known) - len(yes)}
    # log P(yes) = log σ(x) and log P(no) = log σ(-x) with x the log odds.
    logs = {
        is_yes: math.log(max(verdict.mass, 1e-300)) - _softplus(-log_odds if is_yes else log_odds)
        for is_yes in (True, False)
    }
    listed = []
    for number in known:
        is_yes = number in yes
        text = SPELLINGS[number - FIRST_ID] if ids is None else f"{ID_PREFIX}{number}"
        logprob = max(LEAST_LOGPROB, logs[is_yes] - math.log(counts[is_yes]))
        listed.append({"token": text, "logprob": logprob, "bytes": None})
    return sorted(listed, key=lambda item: -float(str(item["logprob"])))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def complete(name: str, verdict: Verdict, listed: list[dict[str, Any]]) -> dict[str, Any]:
    """A chat completion of one token, or of the score as a text where no token can tell it."""
    text, logprobs = f"{verdict.total:.6g}", None
    if listed:
        first = listed[0]
        text = str(first["token"])
        if text.startswith(ID_PREFIX):
            text = SPELLINGS[int(text.removeprefix(ID_PREFIX)) - FIRST_ID]
        logprobs = {"content": [first | {"top_logprobs": listed}]}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "logprobs": logprobs,
        "finish_reason": "length",
    }
    return {
        "id": "chatcmpl-judge",
        "object": "chat.completion",
        "created": 0,
        "model": name,
        "choices": [choice],
        "usage": {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1},
        "resonate_score": {"total": verdict.total, "parts": verdict.parts},
    }
