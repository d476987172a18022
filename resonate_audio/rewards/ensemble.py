"""Several judges as one: asked at the same time, each within its time, weighted and summed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from resonate_audio.core.errors import ConfigError, NoAnswerError, RewardError
from resonate_audio.core.foreign import foreign_code
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.base import Reward, check_rows, make_rewards


@dataclass(frozen=True)
class Member:
    """One judge of an ensemble."""

    label: str
    """What its scores are called in parts and logs."""
    judge: Reward
    weight: float = 1.0
    """Factor of its score in the sum; 0 only reports it."""


class Ensemble:
    """The weighted sum of judges: total = Σ weight · score.

    The parts hold each judge's own score under its label, before its weight, and its parts under
    ``label/part``. When one judge fails, the batch has no score: the others are given up.
    """

    def __init__(self, members: Sequence[Member], timeout_s: float = 300.0) -> None:
        """Put judges together.

        Args:
            members: at least one, with labels that differ.
            timeout_s: seconds that each judge has for a batch.

        Raises:
            ConfigError: no judge, one label twice, or a bad weight or timeout.
        """
        labels = [member.label for member in members]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if not members:
            raise ConfigError("no judge is given; name at least one")
        if twice is not None:
            raise ConfigError(
                f"judge {twice} is given twice; give it once, with both weights added"
            )
        for member in members:
            if not math.isfinite(member.weight):
                raise ConfigError(f"weight {member.weight} of {member.label}: expected a number")
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise ConfigError(f"timeout_s {timeout_s}: expected seconds, more than 0")
        self.members, self.timeout_s = tuple(members), timeout_s
        self.name = _sum([(member.weight, member.label) for member in members], "+")

    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        """Ask every judge at once.

        Raises:
            RewardError: a judge failed or took too long; names it.
        """
        check_rows(self.name, audio, prompts)
        given = await self._ask_all(audio, prompts)
        parts = {}
        for member, rewards in zip(self.members, given, strict=True):
            parts[member.label] = rewards.total
            parts |= {f"{member.label}/{name}": part for name, part in rewards.parts.items()}
        weights = torch.tensor([member.weight for member in self.members], dtype=torch.float64)
        total = weights @ torch.stack([rewards.total for rewards in given])
        judges = zip(weights.tolist(), (rewards.judge for rewards in given), strict=True)
        by_label = {member.label: member.weight for member in self.members}
        return make_rewards(total, _sum(list(judges), " + "), len(prompts), parts, by_label)

    async def _ask_all(self, audio: Waveform, prompts: Sequence[str]) -> list[Rewards]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(score_within(self.timeout_s, member.judge, audio, prompts))
                    for member in self.members
                ]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]


async def score_within(
    timeout_s: float, judge: Reward, audio: Waveform, prompts: Sequence[str]
) -> Rewards:
    """One judge's answer, checked, or an error when its time is up.

    Work that a judge has begun to do in this process cannot be stopped; it goes on unheard.

    Raises:
        RewardError: as the judge's; or no answer after ``timeout_s`` seconds, or one that is not
            a finite number a row.
    """
    try:
        async with asyncio.timeout(timeout_s):
            with foreign_code(judge.name, RewardError):
                rewards = await judge.score(audio, prompts)
    except TimeoutError as error:
        raise NoAnswerError(
            f"{judge.name}: no score after {timeout_s:g} s for {len(prompts)} sounds; give it "
            "more time, or fewer sounds at once"
        ) from error
    if not isinstance(rewards, Rewards):
        raise RewardError(f"{judge.name}: gave {type(rewards).__name__}; expected Rewards")
    return make_rewards(rewards.total, rewards.judge, len(prompts), rewards.parts, rewards.weights)


def _sum(terms: Sequence[tuple[float, str]], plus: str) -> str:
    """A weighted sum as text; a weight of 1 goes without saying."""
    return plus.join(name if weight == 1 else f"{weight:g}*{name}" for weight, name in terms)
