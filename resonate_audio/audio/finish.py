"""The last hand on a sound: silence cut off its ends, its length, its fades, its level."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Float64
from torch import Tensor

from resonate_audio.audio.loudness import (
    POINTS_PER_SAMPLE,
    SILENCE_LUFS,
    loudness_lufs,
    oversampled,
    true_peak,
)
from resonate_audio.core.edit import Finish
from resonate_audio.core.types import Audio

STEP_S = 0.010
"""Stretch whose level decides whether it is silence."""
BEFORE_S, AFTER_S = 0.010, 0.040
"""Kept of the silence around a sound: an attack begins softly, and a tail rings on."""
CUT_FADE_S = 0.005
"""Fade where a sound was cut, so that it does not click."""
CEILING_DB = -1.0
"""True peak that loudness may not pass: room for what lossy codecs add [EBU R 128]."""
LOOK_AHEAD_S = 0.005
"""Time within which the level is taken back before a peak, and brought up after it."""
MOST_LIMITED_DB = 9.0
"""Peaks are held down by no more than this; a sound that needs more stays quieter instead."""
CLOSE_LU = 0.05
MOST_ROUNDS = 8

Samples = Float32[np.ndarray, " _"]
"""Samples of one channel, full scale at 1; two in one signature may differ in length."""


def finish_sound(audio: Audio, wanted: Finish) -> Audio:
    """Do what is wanted, in the order of `Finish`; the recipe of the sound records it.

    What was finished before and cannot be told as one `Finish` with this keeps no recipe, since
    that would make another sound.

    Only ``trim_db`` and ``length_s`` change the number of samples. Silence has no level to bring
    anywhere, and stays silence.

    Raises:
        AudioError: the sound holds no sample.
    """
    rate_hz, samples = audio.sample_rate_hz, audio.samples
    if wanted.trim_db is not None:
        samples = trim(samples, rate_hz, wanted.trim_db)
    if wanted.length_s is not None:
        samples = set_length(samples, rate_hz, max(1, round(wanted.length_s * rate_hz)))
    if wanted.fade_s is not None:
        samples = fade(samples, round(wanted.fade_s * rate_hz), round(wanted.fade_s * rate_hz))
    if wanted.loudness_lufs is not None:
        samples = set_loudness(samples, rate_hz, wanted.loudness_lufs)
    if wanted.normalize_db is not None:
        samples = normalize(samples, wanted.normalize_db)
    recipe = audio.recipe
    if recipe is not None:
        whole = wanted if recipe.finish is None else recipe.finish.followed_by(wanted)
        recipe = None if whole is None else dataclasses.replace(recipe, finish=whole)
    return Audio(samples, rate_hz, recipe)


def trim(samples: Samples, sample_rate_hz: int, threshold_db: float) -> Samples:
    """Cut silence off both ends; a cut end is faded over 5 ms. Digital silence stays.

    Args:
        samples: one channel.
        sample_rate_hz: its rate.
        threshold_db: against the loudest 10 ms.
    """
    start, stop = heard(samples, sample_rate_hz, threshold_db)
    cut = round(CUT_FADE_S * sample_rate_hz)
    return fade(samples[start:stop], cut if start else 0, cut if stop < len(samples) else 0)


def heard(samples: Samples, sample_rate_hz: int, threshold_db: float) -> tuple[int, int]:
    """First and last (excluded) sample of what is left without the silence at both ends.

    That is from the first to the last 10 ms whose level is above the threshold, and 10 ms before
    and 40 ms after; of digital silence, everything.

    Args:
        samples: one channel.
        sample_rate_hz: its rate.
        threshold_db: against the loudest 10 ms.
    """
    step = max(1, round(STEP_S * sample_rate_hz))
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % step)).reshape(-1, step)
    power = (padded**2).mean(axis=1)
    loud = np.flatnonzero(power > power.max(initial=0.0) * 10 ** (threshold_db / 10))
    if not len(loud):
        return 0, len(samples)
    start = max(0, int(loud[0]) * step - round(BEFORE_S * sample_rate_hz))
    stop = (int(loud[-1]) + 1) * step + round(AFTER_S * sample_rate_hz)
    return start, min(len(samples), stop)


def set_length(samples: Samples, sample_rate_hz: int, num_samples: int) -> Samples:
    """Cut the end off, with a fade of 5 ms, or let silence follow."""
    if len(samples) > num_samples:
        return fade(samples[:num_samples], 0, round(CUT_FADE_S * sample_rate_hz))
    return np.pad(samples, (0, num_samples - len(samples)))


def fade(samples: Samples, in_samples: int, out_samples: int) -> Samples:
    """Let a sound come from nothing and go to nothing, along half a cosine.

    Fades that would overlap each take at most half of the sound.
    """
    faded, half = samples.copy(), len(samples) // 2
    rise = _rise(min(in_samples, half))
    fall = _rise(min(out_samples, half))[::-1]
    faded[: len(rise)] *= rise
    faded[len(faded) - len(fall) :] *= fall
    return faded


def normalize(samples: Samples, peak_db: float) -> Samples:
    """Bring the true peak to a level against full scale; silence stays."""
    peak = float(true_peak(_row(samples))[0])
    return samples if peak == 0 else _scaled(samples, 10 ** (peak_db / 20) / peak)


def set_loudness(samples: Samples, sample_rate_hz: int, lufs: float) -> Samples:
    """Bring a sound to an integrated loudness, its true peak under `CEILING_DB`.

    Where the gain lifts peaks over the ceiling, they are held down by up to `MOST_LIMITED_DB` and
    the gain is found again for what is left; a sound of peaks alone stays below the loudness.

    Args:
        samples: one channel.
        sample_rate_hz: its rate.
        lufs: wanted loudness [ITU-R BS.1770-4].
    """
    row = _row(samples)
    peak, loudness = float(true_peak(row)[0]), float(loudness_lufs(row, sample_rate_hz)[0])
    if peak == 0 or loudness <= SILENCE_LUFS:
        return samples
    gain_db = lufs - loudness
    most_db = CEILING_DB + MOST_LIMITED_DB - 20 * math.log10(peak)
    made = samples
    for _ in range(MOST_ROUNDS):
        gain_db = min(gain_db, most_db)
        made = limit(_scaled(samples, 10 ** (gain_db / 20)), sample_rate_hz, CEILING_DB)
        missing = lufs - float(loudness_lufs(_row(made), sample_rate_hz)[0])
        if abs(missing) < CLOSE_LU or (gain_db == most_db and missing > 0):
            break
        gain_db += missing
    return made


def limit(samples: Samples, sample_rate_hz: int, ceiling_db: float) -> Samples:
    """Hold peaks down to a ceiling, looking ahead so that nothing is clipped.

    The gain of a sample is the smallest that any peak within `LOOK_AHEAD_S` needs, smoothed over
    that time: a mean of values that are all small enough is small enough.
    """
    ceiling = 10 ** (ceiling_db / 20)
    points = oversampled(_row(samples)).abs()[0]
    if float(points.max()) <= ceiling:
        return samples
    # A point between two samples is made by both of them.
    peaks = points.reshape(-1, POINTS_PER_SAMPLE).amax(dim=1)
    peaks = torch.maximum(peaks, F.pad(peaks[:-1], (1, 0)))
    needed = (ceiling / peaks.clamp_min(1e-12)).clamp(max=1)
    made = _scaled(samples, _smoothed(needed, round(LOOK_AHEAD_S * sample_rate_hz)).numpy())
    # What the moving gain adds between samples is far below a decibel: taken off everywhere.
    rest = float(true_peak(_row(made))[0])
    return made if rest <= ceiling else _scaled(made, ceiling / rest)


def _smoothed(needed: Float64[Tensor, " sample"], reach: int) -> Float64[Tensor, " sample"]:
    width = 2 * reach + 1
    padded = F.pad(needed[None, None], (reach, reach), value=1.0)
    least = -F.max_pool1d(F.pad(-padded, (reach, reach), value=-1.0), width, stride=1)
    window = torch.hann_window(width + 2, periodic=False, dtype=torch.float64)[1:-1]
    return F.conv1d(least, (window / window.sum())[None, None])[0, 0]


def _rise(num_samples: int) -> Float32[np.ndarray, " sample"]:
    places = (np.arange(num_samples) + 0.5) / max(1, num_samples)
    return (0.5 - 0.5 * np.cos(np.pi * places)).astype(np.float32)


def _row(samples: Samples) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(samples))[None]


def _scaled(samples: Samples, gain: float | Float64[np.ndarray, " sample"]) -> Samples:
    return (samples * gain).astype(np.float32)
