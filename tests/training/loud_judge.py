"""A judge for processes of their own: likes loud sounds."""

import os

import numpy as np


def loudness(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    """Root mean square of each row."""
    return [float(value) for value in np.sqrt((samples.astype(np.float64) ** 2).mean(axis=1))]


def softness(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    """The opposite."""
    return [-level for level in loudness(samples, sample_rate_hz, prompts)]


def deaf_after_a_while(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    """Fails on the third call of a process."""
    global calls
    calls += 1
    if calls > 2:
        return [float("nan")] * len(samples)
    return loudness(samples, sample_rate_hz, prompts)


calls = 0


def deaf_second_process(
    samples: np.ndarray, sample_rate_hz: int, prompts: list[str]
) -> list[float]:
    """Fails on the third call of the second process of several."""
    deaf = os.environ.get("RANK") == "1"
    return (deaf_after_a_while if deaf else loudness)(samples, sample_rate_hz, prompts)
