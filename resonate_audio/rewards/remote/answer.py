"""Read P(yes) from the log-probabilities of one answer token, or bounds where a label is hidden."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from resonate_audio.core.errors import RewardError

ID_PREFIX = "token_id:"
"""How vLLM writes a token that is returned by its id."""
REMAINDER_SLACK = 1e-5
"""Probability added to what the listed tokens leave over: they come from a float32 softmax."""
LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, as in vLLM's own replies; its exponential is 0."""
POSITIVE_SLACK = 1e-3
"""A log-probability may be this far over 0 from rounding; further is another quantity."""


@dataclass(frozen=True)
class Labels:
    """The tokens that mean yes and those that mean no, as text or as ``token_id:N``."""

    yes: frozenset[str]
    no: frozenset[str]

    @property
    def token_ids(self) -> list[int]:
        """The ids among them, rising."""
        tokens = self.yes | self.no
        return sorted(
            int(token.removeprefix(ID_PREFIX)) for token in tokens if token.startswith(ID_PREFIX)
        )


@dataclass(frozen=True)
class TokenLogprob:
    """One listed token and the logarithm of its probability."""

    token: str
    logprob: float


@dataclass(frozen=True)
class Answer:
    """Probability of yes against no, and how well it is known."""

    p_yes: float
    """P(yes) / (P(yes) + P(no)); the middle of the bounds where a label was not listed."""
    log_odds: float
    """Logarithm of P(yes) / P(no), which tells apart what is all but certain; of ``p_yes`` where a
    label was not listed."""
    lower: float
    upper: float
    mass: float
    """P(yes) + P(no) over the listed labels: how much of the model's belief the question got."""

    @property
    def bound_width(self) -> float:
        """0 when every label was listed, else the room that the hidden ones leave."""
        return self.upper - self.lower


class Score(BaseModel):
    """A score as it is, of a judge that ``resonate serve --reward`` serves: any finite number."""

    model_config = ConfigDict(strict=True)

    total: FiniteFloat
    parts: dict[str, FiniteFloat] = {}


class _Scored(BaseModel):
    resonate_score: Score | None = None


class _Token(BaseModel):
    model_config = ConfigDict(strict=True)

    token: str
    logprob: float


class _Position(_Token):
    top_logprobs: list[_Token]


class _Logprobs(BaseModel):
    content: list[_Position] = Field(min_length=1)


class _Choice(BaseModel):
    logprobs: _Logprobs


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


def read_score(body: bytes) -> Score | None:
    """The score that a reply tells beside its tokens, or None where it tells only tokens.

    Raises:
        RewardError: what is told as a score is not a finite number.
    """
    try:
        return _Scored.model_validate_json(body).resonate_score
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"][:1] != ("resonate_score",):
            return None  # no JSON object at all; reading its tokens says so
        place = ".".join(str(part) for part in first["loc"])
        raise RewardError(
            f"its reply holds a score that is none ({place}: {first['msg']})"
        ) from error


def read_reply(body: bytes) -> list[TokenLogprob]:
    """The tokens listed at the first position of a chat completion.

    Raises:
        RewardError: not JSON, no log-probabilities in it, or one that is NaN or positive.
    """
    try:
        position = _Reply.model_validate_json(body).choices[0].logprobs.content[0]
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise RewardError(
            f"its reply is not a chat completion with log-probabilities ({place}: {first['msg']})"
        ) from error
    listed = [TokenLogprob(item.token, item.logprob) for item in position.top_logprobs]
    if position.token not in {item.token for item in listed}:
        listed.append(TokenLogprob(position.token, position.logprob))
    for item in listed:
        if not item.logprob <= POSITIVE_SLACK:
            raise RewardError(f"it gives token {item.token!r} the log-probability {item.logprob}")
    return [TokenLogprob(item.token, max(item.logprob, LEAST_LOGPROB)) for item in listed]


def read_answer(listed: Sequence[TokenLogprob], labels: Sequence[Labels], top_k: int) -> Answer:
    """P(yes) from the listed tokens.

    p = sigmoid(logsumexp_yes(l) − logsumexp_no(l))            [AQAScore, arXiv:2601.14728]

    A label outside the list has at most the probability of the list's last token, when the list
    holds the ``top_k`` likeliest, and all of them together at most what the list leaves over.
    So with u the most that hidden labels can hold:

    P(yes) / (P(yes) + P(no) + u_no)  ≤  p  ≤  (P(yes) + u_yes) / (P(yes) + u_yes + P(no))

    Args:
        listed: tokens with log-probabilities.
        labels: ways to write the labels, best first; the first that the list speaks is taken.
        top_k: how many tokens were asked for; a shorter list need not hold the likeliest.

    Raises:
        RewardError: no label has any probability.
    """
    label = _spoken(listed, labels)
    yes, no = _log_mass(listed, label.yes), _log_mass(listed, label.no)
    mass = math.exp(yes) + math.exp(no)
    if mass > 1 + POSITIVE_SLACK:
        raise RewardError(
            f"it gives yes and no together the probability {mass:.4g}; expected 1 at most"
        )
    if mass == 0.0:
        first = max(listed, key=lambda item: item.logprob)
        raise RewardError(
            f"the model answers neither yes nor no but {first.token!r} "
            f"(p = {math.exp(first.logprob):.3g}, {len(listed)} tokens listed)"
        )
    tokens = {item.token for item in listed}
    num_hidden_yes, num_hidden_no = len(label.yes - tokens), len(label.no - tokens)
    if not num_hidden_yes and not num_hidden_no:
        p_yes = _sigmoid(yes - no)
        return Answer(p_yes, yes - no, p_yes, p_yes, mass)
    each, together = _room(listed, top_k)
    lower = math.exp(yes) / (mass + min(num_hidden_no * each, together))
    upper = 1.0 - math.exp(no) / (mass + min(num_hidden_yes * each, together))
    middle = (lower + upper) / 2
    return Answer(middle, log_odds_of(middle), lower, upper, mass)


def label_ids(
    yes: Iterable[str], no: Iterable[str], tokens: Mapping[str, Collection[int]]
) -> Labels:
    """The labels by id, from how the model's tokenizer splits each spelling.

    A spelling of several tokens cannot be one answer token and is left out.

    Raises:
        RewardError: no spelling of yes, or none of no, is a single token; or one id is both.
    """
    yes_ids, no_ids = _single(yes, tokens), _single(no, tokens)
    if not yes_ids or not no_ids or yes_ids & no_ids:
        raise RewardError(
            f"the model's tokenizer has no token of its own for yes and for no "
            f"(yes: {sorted(yes_ids)}, no: {sorted(no_ids)}); give other spellings"
        )
    return Labels(yes_ids, no_ids)


def _single(spellings: Iterable[str], tokens: Mapping[str, Collection[int]]) -> frozenset[str]:
    return frozenset(
        f"{ID_PREFIX}{token}"
        for text in spellings
        if len(tokens[text]) == 1
        for token in tokens[text]
    )


def _spoken(listed: Sequence[TokenLogprob], labels: Sequence[Labels]) -> Labels:
    """Ids when the server lists ids; a server that does not know that option lists text."""
    by_id = any(item.token.startswith(ID_PREFIX) for item in listed)
    return next((label for label in labels if bool(label.token_ids) == by_id), labels[-1])


def _room(listed: Sequence[TokenLogprob], top_k: int) -> tuple[float, float]:
    """The most probability that one token outside the list can have, and all of them together."""
    left = max(0.0, 1.0 - math.fsum(math.exp(item.logprob) for item in listed)) + REMAINDER_SLACK
    if len(listed) < top_k:
        return left, left
    return math.exp(min(item.logprob for item in listed)), left


def _log_mass(listed: Sequence[TokenLogprob], tokens: frozenset[str]) -> float:
    values = [item.logprob for item in listed if item.token in tokens]
    top = max(values, default=-math.inf)
    if top == -math.inf:
        return -math.inf
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def log_odds_of(p: float) -> float:
    """Log p / (1 − p), of what is certain as far as a log-probability goes."""
    if p in (0.0, 1.0):
        return math.copysign(-LEAST_LOGPROB, p - 0.5)
    return math.log(p) - math.log1p(-p)


def _sigmoid(log_odds: float) -> float:
    if log_odds >= 0:
        return 1.0 / (1.0 + math.exp(-log_odds))
    return math.exp(log_odds) / (1.0 + math.exp(log_odds))
