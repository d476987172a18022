"""Sounds that nobody would keep: what a generator may end in that has learnt to please a judge.

Each is made of a sound that answers its text, so that only the spoiling tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float32

from resonate_audio.nano.judges.sounds import RATE_HZ

Samples = Float32[np.ndarray, "_"]
AUDIBLE = 10 ** (-40 / 20)
"""A sound begins and ends where it is within 40 dB of its peak."""
CLICK_S = 0.01
FADE_S = 0.002
LATEST = 0.6
"""Part of a sound before which it is cut."""


def span(samples: Samples) -> tuple[int, int]:
    """First and last sample that can be heard, the latter plus one; all of them in silence."""
    heard = np.flatnonzero(np.abs(samples) >= AUDIBLE * np.abs(samples).max())
    return (int(heard[0]), int(heard[-1]) + 1) if len(heard) else (0, len(samples))


def cut_off(samples: Samples, rng: np.random.Generator) -> Samples:
    """Silent from some moment on where it should sound, 20 to 60 % of its way."""
    first, last = span(samples)
    end = first + round(rng.uniform(0.2, LATEST) * (last - first))
    kept = samples.copy()
    fade = max(1, round(FADE_S * RATE_HZ))
    kept[end:] = 0
    tail = kept[max(0, end - fade) : end]
    tail *= np.linspace(1, 0, len(tail), dtype=np.float32)
    return kept


def one_click(samples: Samples, rng: np.random.Generator) -> Samples:
    """Silence, but for the sound's loudest hundredth of a second, somewhere."""
    length = min(round(CLICK_S * RATE_HZ), len(samples))
    centre = int(np.abs(samples).argmax())
    start = min(max(0, centre - length // 2), len(samples) - length)
    place = int(rng.integers(0, len(samples) - length + 1))
    made = np.zeros_like(samples)
    made[place : place + length] = samples[start : start + length] * np.hanning(length)
    return made


def drowned(samples: Samples, rng: np.random.Generator) -> Samples:
    """Noise as loud as the sound, and none of the sound."""
    level = np.sqrt(np.square(samples).mean())
    noise: Samples = np.float32(level) * coloured_noise(len(samples), rng)
    return noise


def far_too_quiet(samples: Samples, rng: np.random.Generator) -> Samples:
    """Peaks of 36 to 60 dB below full scale."""
    peak = max(float(np.abs(samples).max()), 1e-9)
    return (samples * (10 ** (rng.uniform(-60, -36) / 20) / peak)).astype(np.float32)


def clipped(samples: Samples, rng: np.random.Generator) -> Samples:
    """15 to 35 dB over full scale."""
    peak = max(float(np.abs(samples).max()), 1e-9)
    return np.clip(samples * (10 ** (rng.uniform(15, 35) / 20) / peak), -1, 1).astype(np.float32)


def glued(samples: Samples, rng: np.random.Generator) -> Samples:
    """Stretches of it in another order, hard at each joint."""
    first, last = span(samples)
    edges = np.sort(rng.integers(first, last + 1, 7))
    parts = np.split(samples[first:last], edges - first)
    order = rng.permutation(len(parts))
    made = samples.copy()
    made[first:last] = np.concatenate([parts[index] for index in order])
    return made


def coloured_noise(num_samples: int, rng: np.random.Generator) -> Samples:
    """Noise of unit power whose spectrum falls by 0 to 6 dB an octave."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    spectrum *= np.arange(1, len(spectrum) + 1) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, num_samples)
    scaled: Samples = (noise / np.sqrt(np.square(noise).mean())).astype(np.float32)
    return scaled


WAYS: Mapping[str, Callable[[Samples, np.random.Generator], Samples]] = {
    "cut off": cut_off,
    "one click": one_click,
    "noise": drowned,
    "too quiet": far_too_quiet,
    "clipped": clipped,
    "glued": glued,
}
SPOILED = tuple(WAYS)
"""Every way to spoil a sound."""


def spoil(samples: Samples, how: str, rng: np.random.Generator) -> Samples:
    """Spoil a sound in one way of `SPOILED`.

    Args:
        samples: in [-1, 1], at the judges' rate.
        how: the way.
        rng: decides how much and where.
    """
    return WAYS[how](samples, rng)
