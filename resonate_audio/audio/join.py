"""Putting one sound beside another so that nothing tells where."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64

Samples = Float32[np.ndarray, " _"]
"""Samples of one channel, full scale at 1; two in one signature may differ in length."""

ORDER_S = 0.004
"""Reach of the prediction: a pitch of 250 Hz and above goes on with its phase."""
HISTORY_S = 0.060
"""Stretch before the end that the prediction is learnt from."""


def cross_fade(old: Samples, new: Samples) -> Samples:
    """Pass from one sound to another, keeping the power on the way.

    y = (a·old + b·new) / √(a² + b² + 2·a·b·ρ),  a = 1 − b,  b rising from 0 to 1

    ρ is the correlation of the two, at least 0: equal sounds cross linearly, unrelated ones with
    equal power, and what lies between them in between.

    Args:
        old: what was there, as long as the passage.
        new: what shall be there, as long.
    """
    rising = ((np.arange(len(old)) + 0.5) / max(1, len(old))).astype(np.float64)
    falling = 1 - rising
    power = float(
        np.sqrt((old.astype(np.float64) ** 2).sum() * (new.astype(np.float64) ** 2).sum())
    )
    related = max(0.0, float(np.dot(old.astype(np.float64), new))) / power if power > 0 else 1.0
    scale = np.sqrt(rising**2 + falling**2 + 2 * rising * falling * min(1.0, related))
    return np.asarray((falling * old + rising * new) / scale, dtype=np.float32)


def paste(source: Samples, new: Samples, start: int, fade_samples: int) -> Samples:
    """Put a sound in the place of what stood there; outside it not a bit changes.

    The passages lie inside: the first and the last ``fade_samples`` of the place are crossed with
    what stood there. An end of the place that is an end of the source has none. What is put stays
    within full scale, or whoever writes the file would have to make all of it quieter.

    Args:
        source: what stands.
        new: what to put.
        start: sample of ``source`` that the first of ``new`` takes the place of.
        fade_samples: length of a passage; at most half of ``new``.
    """
    stop, length = start + len(new), min(fade_samples, len(new) // 2)
    made, put = source.copy(), new.copy()
    if start > 0 and length:
        put[:length] = cross_fade(source[start : start + length], new[:length])
    if stop < len(source) and length:
        there = source[stop - length : stop]
        put[-length:] = cross_fade(there[::-1], new[-length:][::-1])[::-1]
    made[start:stop] = np.clip(put, -1, 1)
    return made


def go_on(samples: Samples, sample_rate_hz: int, num_samples: int) -> Samples:
    """How a sound would go on after its end, for a few milliseconds.

    Linear prediction whose coefficients are Burg's [Burg 1975], of the last 60 ms, driven by noise
    as strong as what it could not predict there: partials go on with their phase, noise goes on as
    noise of its colour. The noise is the same in every call.

    Args:
        samples: what there is.
        sample_rate_hz: its rate.
        num_samples: how many to add.

    Returns:
        The added samples alone.
    """
    past = samples[-round(HISTORY_S * sample_rate_hz) :].astype(np.float64)
    order = min(round(ORDER_S * sample_rate_hz), len(past) // 3)
    if not num_samples or order < 1 or not past.any():
        return np.zeros(num_samples, np.float32)
    coefficients, deviation = burg(past, order)
    noise = deviation * np.random.default_rng(0).standard_normal(num_samples)
    line = np.concatenate([past[-order:], noise])
    for place in range(order, len(line)):
        line[place] += coefficients @ line[place - order : place][::-1]
    return line[order:].astype(np.float32)


def burg(
    x: Float64[np.ndarray, " sample"], order: int
) -> tuple[Float64[np.ndarray, " lag"], float]:
    """Coefficients of x_n ≈ Σ_k c_k·x_(n−k), k = 1 … order, never growing; deviation of the rest.

    Each reflection k minimises the power of forward and backward errors together:
    k = 2·Σ f_n·b_(n−1) / Σ (f_n² + b_(n−1)²)          [Burg 1975]
    """
    error = np.zeros(order + 1)
    error[0] = 1.0
    forward, backward = x[1:].copy(), x[:-1].copy()
    for step in range(order):
        power = forward @ forward + backward @ backward
        reflection = 2 * (forward @ backward) / power if power > 0 else 0.0
        error[1 : step + 2] -= reflection * error[: step + 1][::-1]
        forward, backward = (
            (forward - reflection * backward)[1:],
            (backward - reflection * forward)[:-1],
        )
    return -error[1:], float(np.sqrt((forward @ forward + backward @ backward) / 2 / len(forward)))
