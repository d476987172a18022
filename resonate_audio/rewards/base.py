"""The protocol of a judge, and what every judge's answer must be."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.errors import RewardError
from resonate_audio.core.types import Rewards, Waveform

ResultT = TypeVar("ResultT")


@runtime_checkable
class Reward(Protocol):
    """Scores sounds for texts. Any object with these two members is one."""

    @property
    def name(self) -> str:
        """How results and logs call it."""
        ...

    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        """Score each row for its own text.

        Args:
            audio: sounds of equal length at any rate; the judge resamples.
            prompts: one text a row.

        Raises:
            RewardError: a row has no score; never a number in its place.
        """
        ...


def make_rewards(
    total: Float[Tensor, " row"] | Sequence[float],
    judge: str,
    num_rows: int,
    parts: Mapping[str, Float[Tensor, " row"] | Sequence[float]] | None = None,
    weights: Mapping[str, float] | None = None,
) -> Rewards:
    """Check what a judge gave, and carry it to float64 on the CPU.

    Raises:
        RewardError: another number of rows than asked for, or a number that is not finite; names
            the judge, the part and the first such row.
    """
    checked = {
        name: _column(values, name, judge, num_rows) for name, values in (parts or {}).items()
    }
    return Rewards(_column(total, "total", judge, num_rows), checked, judge, weights or {})


def _column(
    values: Float[Tensor, " row"] | Sequence[float], name: str, judge: str, num_rows: int
) -> Float[Tensor, " row"]:
    given = torch.as_tensor(values).detach()
    if given.is_complex():
        raise RewardError(f"{judge}: {name} is complex; expected real numbers")
    column = given.to("cpu", torch.float64)
    if column.shape != (num_rows,):
        raise RewardError(
            f"{judge}: {name} has shape {tuple(column.shape)}; expected one score for each of "
            f"{num_rows} rows"
        )
    broken = (~column.isfinite()).nonzero().flatten().tolist()
    if broken:
        row = broken[0]
        raise RewardError(f"{judge}: {name} of row {row + 1} is {column[row].item()}")
    return column


def check_rows(judge: str, audio: Waveform, prompts: Sequence[str]) -> None:
    """Refuse sounds and texts that are not one of each a row.

    Raises:
        RewardError: names the judge and both numbers.
    """
    if len(prompts) != len(audio.samples):
        raise RewardError(
            f"{judge}: {len(prompts)} texts for {len(audio.samples)} sounds; give one each"
        )


async def in_thread(work: Callable[[], ResultT]) -> ResultT:
    """Run a judge that computes here without holding up the event loop, where its executor says."""
    return await asyncio.to_thread(work)


class LocalJudge(ABC):
    """A judge that computes here, beside the event loop."""

    name: str

    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        """Score each row for its own text.

        Raises:
            RewardError: not one text a sound, or what this judge cannot hear or read.
        """
        check_rows(self.name, audio, prompts)
        return await in_thread(lambda: self._score(audio, prompts))

    @abstractmethod
    def _score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        """The same, here and now, of as many texts as sounds."""
