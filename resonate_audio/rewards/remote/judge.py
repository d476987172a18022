"""An audio LLM on another process or machine as a judge: P(yes) through chat completions."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import struct
import threading
import warnings
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32
from pydantic import BaseModel, ValidationError
from torch import Tensor

from resonate_audio.core.errors import ConfigError, RewardError
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.audio_llm.aqascore import LowAnswerMassWarning
from resonate_audio.rewards.audio_llm.question import CAPTION
from resonate_audio.rewards.base import check_rows, in_thread, make_rewards
from resonate_audio.rewards.hearing import hear
from resonate_audio.rewards.remote.answer import (
    ID_PREFIX,
    Answer,
    Labels,
    Score,
    label_ids,
    read_answer,
    read_reply,
    read_score,
)
from resonate_audio.rewards.remote.config import RemoteConfig, parse_remote_spec
from resonate_audio.rewards.remote.transport import Refused, Transport, TransportStats

if TYPE_CHECKING:
    from httpx2 import AsyncClient

JUDGE_RATE_HZ = 16_000
CONTROL_SIGN = "<|"
IEEE_FLOAT = 3
"""WAV code of float samples: 16-bit ones move the log-mel of a quiet sound (-40 dB) by 0.03."""


@dataclass(frozen=True)
class RemoteStats:
    """What a remote judge has done so far."""

    num_rows: int
    """Rows with a score."""
    num_bounded_rows: int
    """Rows among them whose score is the middle of bounds."""
    transport: TransportStats


class RemoteAQAReward:
    """Asks audio LLMs behind an OpenAI-compatible API whether a sound has what its text says.

    score = P(yes) / (P(yes) + P(no)) as the first answer token   [AQAScore, arXiv:2601.14728]

    The parts report ``log_odds`` and ``answer_mass`` = P(yes) + P(no) as `AQAReward` does, and
    ``bound_width``, which is 0 where the probabilities of all labels are known exactly.

    A judge of any kind behind ``resonate serve --reward`` tells its score and its parts as they
    are, and those are taken: they may be any finite numbers.
    """

    def __init__(self, config: RemoteConfig) -> None:
        self._config = config
        self._transport = Transport(config.urls, config, _read_key(config))
        self._question = config.asked
        self._texts = Labels(frozenset(self._question.yes), frozenset(self._question.no))
        self._ids: Labels | None = None
        self._ids_known = not config.discover_ids
        if config.yes_ids:
            self._ids, self._ids_known = _given_ids(config), True
        self.name = f"aqa-remote:{config.model.rpartition('/')[2]}"
        asked = f"{self._question.name} {config.fingerprint}"
        self._judge = f"{self.name}[{config.model}, {asked}]"
        self._num_rows = 0
        self._num_bounded_rows = 0
        self._lock = threading.Lock()

    @property
    def stats(self) -> RemoteStats:
        """Rows, requests, retries and latencies so far."""
        return RemoteStats(self._num_rows, self._num_bounded_rows, self._transport.stats)

    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        """Ask about every row at once, within the bound on requests under way.

        Raises:
            RewardError: a row has no score: no server answered, one refused, or what came is no
                answer; names the URL, the row and the cause. The other rows are given up.
        """
        check_rows(self.name, audio, prompts)
        _check_texts(prompts)
        sounds = await in_thread(lambda: _encode_rows(audio))
        async with self._transport.connect() as client:
            if not self._ids_known:
                self._ids, self._ids_known = await self._discover_ids(client), True
            answers = await _all_or_first_error(
                [
                    self._ask(client, row, sound, prompt)
                    for row, (sound, prompt) in enumerate(zip(sounds, prompts, strict=True), 1)
                ]
            )
        return self._collect(answers)

    async def calibrate(
        self,
        reference_scores: Float[Tensor, " row"],
        audio: Waveform,
        prompts: Sequence[str],
        tolerance: float = 0.02,
    ) -> float:
        """Score clips whose scores are known from the same weights in this process.

        Catches another chat template, resampler, precision or version on the server before a
        run optimises against it.

        Returns:
            The largest difference.

        Raises:
            RewardError: it exceeds ``tolerance``; names the row and both numbers.
        """
        rewards = await self.score(audio, prompts)
        reference = make_rewards(reference_scores, "reference", len(prompts)).total
        difference = (rewards.total - reference).abs()
        if not len(difference):
            raise RewardError(f"{self.name}: calibration needs a sound; give about 10")
        row = int(difference.argmax())
        largest = float(difference[row])
        if largest > tolerance:
            raise RewardError(
                f"{self.name}: scores row {row + 1} {float(rewards.total[row]):.4f}, but here the "
                f"model gives {float(reference[row]):.4f}: over {tolerance:g} apart (the mean of "
                f"{len(difference)} rows is {float(difference.mean()):.4f}); see model, family, "
                "question, precision and version of the server"
            )
        return largest

    def _collect(self, scores: Sequence[Score]) -> Rewards:
        with self._lock:
            self._num_rows += len(scores)
            self._num_bounded_rows += sum(score.parts.get("bound_width", 0) > 0 for score in scores)
        names = [name for name in scores[0].parts] if scores else []
        names = [name for name in names if all(name in score.parts for score in scores)]
        parts = {name: [score.parts[name] for score in scores] for name in names}
        if "answer_mass" in parts:
            self._warn_of_low(parts["answer_mass"])
        return make_rewards([score.total for score in scores], self._judge, len(scores), parts)

    def _warn_of_low(self, masses: Sequence[float]) -> None:
        mass = math.fsum(masses) / max(len(masses), 1)
        if mass < self._config.warn_below_mass:
            warnings.warn(
                f"{self.name}: P(yes) + P(no) is only {mass:.3f} on average; the model would "
                "rather say something else, so see its question and its weights",
                LowAnswerMassWarning,
                stacklevel=2,
            )

    async def _ask(self, client: AsyncClient, row: int, sound: str, prompt: str) -> Score:
        body = request_body(self._config, self._ids, sound, prompt)
        reply = await self._transport.post(client, "chat/completions", body, f"row {row}")
        labels = [self._ids, self._texts] if self._ids else [self._texts]
        try:
            told = read_score(reply.body)
            if told is not None:
                return told
            answer = read_answer(read_reply(reply.body), labels, self._config.top_logprobs)
            self._check(answer)
        except RewardError as error:
            raise RewardError(f"{reply.url}: row {row} has no score: {error}") from error
        parts = {
            "log_odds": answer.log_odds,
            "answer_mass": answer.mass,
            "bound_width": answer.bound_width,
        }
        return Score(total=answer.p_yes, parts=parts)

    def _check(self, answer: Answer) -> None:
        if answer.mass <= self._config.min_mass:
            raise RewardError(
                f"yes and no together have probability {answer.mass:.3g}, not over "
                f"min_mass={self._config.min_mass:g}"
            )
        widest = self._config.max_bound_width if self._config.hidden_label == "midpoint" else 0.0
        if answer.bound_width > widest:
            raise RewardError(
                f"a label is not among the listed tokens, so P(yes) lies somewhere in "
                f"[{answer.lower:.4f}, {answer.upper:.4f}], wider than {widest:g}; serve with "
                "vLLM 0.32 or newer, which can be asked for the labels by id"
            )

    async def _discover_ids(self, client: AsyncClient) -> Labels | None:
        """The labels by id, or None when the server cannot tell how it splits a text."""
        tokens: dict[str, list[int]] = {}
        for text in (*self._question.yes, *self._question.no):
            body = {"model": self._config.model, "prompt": text, "add_special_tokens": False}
            try:
                reply = await self._transport.post(
                    client, "../tokenize", _json(body), f"the token id of {text!r}"
                )
                tokens[text] = _Tokens.model_validate_json(reply.body).tokens
            except (Refused, ValidationError):
                return None
        return label_ids(self._question.yes, self._question.no, tokens)


class _Tokens(BaseModel):
    tokens: list[int]


def request_body(config: RemoteConfig, ids: Labels | None, sound: str, prompt: str) -> bytes:
    """The chat completion that asks about one sound.

    Args:
        config: model, question, order.
        ids: the labels by id, when known: vLLM then gives exactly their log-probabilities.
        sound: base64 of a WAV file.
        prompt: the caption.
    """
    text = {"type": "text", "text": config.wording.replace(CAPTION, prompt)}
    clip = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
    user = {"role": "user", "content": [clip, text] if config.audio_first else [text, clip]}
    turn = config.system_turn
    system = [] if turn is None else [{"role": "system", "content": turn}]
    body: dict[str, Any] = {
        "model": config.model,
        "messages": [*system, user],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": config.top_logprobs,
    }
    if ids is not None:
        body |= {"logprob_token_ids": ids.token_ids, "return_tokens_as_token_ids": True}
    return _json(body)


def encode_wav(samples: Float32[np.ndarray, " sample"], sample_rate_hz: int) -> bytes:
    """A WAV file of float samples.

    Written here because libsndfile puts the time of day into float files: the same sound would
    be other bytes every second, and no cache would know it again.
    """
    data = samples.astype("<f4").tobytes()
    layout = struct.pack("<HHIIHH", IEEE_FLOAT, 1, sample_rate_hz, 4 * sample_rate_hz, 4, 32)
    chunks = b"fmt " + struct.pack("<I", len(layout)) + layout
    chunks += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def open_remote(spec: str) -> RemoteAQAReward:
    """Make a remote judge from one line of text, as `parse_remote_spec` takes it.

    Raises:
        ConfigError: as `parse_remote_spec`, or the environment variable of the key is not set.
    """
    return RemoteAQAReward(parse_remote_spec(spec))


def _read_key(config: RemoteConfig) -> str | None:
    """The API key; a missing one is a mistake only where its variable was named on purpose."""
    key = os.environ.get(config.key_env) or None
    if key is None and "key_env" in config.model_fields_set:
        raise ConfigError(f"remote judge: environment variable {config.key_env} holds no key")
    return key


def _given_ids(config: RemoteConfig) -> Labels:
    yes, no = (
        frozenset(f"{ID_PREFIX}{token}" for token in ids) for ids in (config.yes_ids, config.no_ids)
    )
    return Labels(yes, no)


def _encode_rows(audio: Waveform) -> list[str]:
    return [
        base64.b64encode(encode_wav(row, JUDGE_RATE_HZ)).decode("ascii")
        for row in hear(audio, JUDGE_RATE_HZ).numpy()
    ]


def _check_texts(prompts: Sequence[str]) -> None:
    for row, text in enumerate(prompts, 1):
        if CONTROL_SIGN in text:
            raise RewardError(
                f"the text of row {row} holds {CONTROL_SIGN}, the beginning of tokens that steer "
                "the judge; take it out"
            )


async def _all_or_first_error(
    questions: Sequence[Coroutine[None, None, Score]],
) -> list[Score]:
    """Run all; when one fails, stop the others and raise its error."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(question) for question in questions]
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode("ascii")
