"""Judges for a server of its own, whose scores are no probabilities."""

import numpy as np


def decibels(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    """Level of each row under full scale."""
    power = (samples.astype(np.float64) ** 2).mean(axis=1)
    return [float(10 * np.log10(value)) for value in power]


def seconds(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    """Length of each row."""
    return [samples.shape[1] / sample_rate_hz] * len(samples)
