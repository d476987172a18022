"""Judges of a few lines, as a user would write them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import torch

from resonate_audio.core.errors import RewardError
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.base import make_rewards


def loudness(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    assert len(samples) == len(prompts)
    return [float(np.sqrt(np.mean(row**2))) for row in samples]


async def text_length(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[int]:
    await asyncio.sleep(0)
    return [len(prompt) for prompt in prompts]


def rate(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> np.ndarray:
    return np.full(len(samples), sample_rate_hz)


def as_tensor(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> torch.Tensor:
    return torch.arange(len(prompts))


def too_few(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    return [1.0] * (len(prompts) - 1)


def not_a_number(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    return [0.0, float("nan"), *[1.0] * (len(prompts) - 2)]


def words(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[str]:
    return ["good"] * len(prompts)


def nothing(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> None:
    return None


def two_columns(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> torch.Tensor:
    return torch.zeros(len(prompts), 2)


def complex_numbers(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> np.ndarray:
    return np.full(len(prompts), 1 + 5j)


def complex_tensor(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> torch.Tensor:
    return torch.full((len(prompts),), 1 + 5j)


def numbers_as_words(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[str]:
    return ["1.5"] * len(prompts)


def cancelled(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    raise asyncio.CancelledError


async def cancelled_async(
    samples: np.ndarray, sample_rate_hz: int, prompts: list[str]
) -> list[float]:
    task = asyncio.ensure_future(asyncio.sleep(10))
    task.cancel()
    await task
    return [0.0] * len(prompts)


def broken(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    raise KeyError("dog")


def spoil(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    samples[:] = 0
    return [0.0] * len(prompts)


def waits_for_itself(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    raise TimeoutError("my own server is slow")


class Steady:
    """A judge that takes a while, counts who is at work beside it, and gives one number."""

    at_work = 0
    most_at_work = 0

    def __init__(self, name: str = "steady", value: float = 1.0, seconds: float = 0.0) -> None:
        self.name, self.value, self.seconds = name, value, seconds
        self.was_stopped = False

    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        Steady.at_work += 1
        Steady.most_at_work = max(Steady.most_at_work, Steady.at_work)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.was_stopped = True
            raise
        finally:
            Steady.at_work -= 1
        values = [self.value * row for row in range(len(prompts))]
        rows = [float(row) for row in range(len(prompts))]
        return make_rewards(values, f"{self.name}[v1]", len(prompts), {"row": rows})


class Failing(Steady):
    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        await asyncio.sleep(self.seconds)
        raise RewardError(f"{self.name}: row 1 has no score")


class Careless(Steady):
    """Breaks the protocol: too few rows, and never checked."""

    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        return Rewards(torch.ones(len(prompts) - 1), {}, self.name)


class Cancelled(Steady):
    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        raise asyncio.CancelledError


def sleep_long(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    time.sleep(0.5)
    return [0.0] * len(prompts)


NUMBER = 3
