"""Loudness as people hear it: K-weighted, gated, in LUFS [ITU-R BS.1770-4]."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex128, Float, Float64
from torch import Tensor

from resonate_audio.core.errors import InputError

SILENCE_LUFS = -70.0
"""Blocks below are not heard (the absolute gate), and nothing is reported as quieter."""
RELATIVE_GATE_LU = 10.0
BLOCK_S, STEP_S = 0.4, 0.1
OFFSET_LU = -0.691
"""Makes a 997 Hz sine of full scale -3.01 LUFS."""
POINTS_PER_SAMPLE = 4
EDGE_SAMPLES = 1024
"""Silence in which the interpolation rings out."""
RINGING_S = 0.5
"""Zeros after the sound, so that the filters' tail does not wrap around."""

Biquad = tuple[tuple[float, float, float], tuple[float, float]]
"""(b0, b1, b2), (a1, a2) of (b0 + b1/z + b2/z²) / (1 + a1/z + a2/z²)."""
LISTED_RATE_HZ = 48_000
HEAD_SHELF: Biquad = (
    (1.53512485958697, -2.69169618940638, 1.19839281085285),
    (-1.69065929318241, 0.73248077421585),
)
RUMBLE_CUT: Biquad = ((1.0, -2.0, 1.0), (-1.99004745483398, 0.99007225036621))
"""Tables 1 and 2 of the standard, for 48 kHz."""


def loudness_lufs(
    samples: Float[Tensor, "row sample"], sample_rate_hz: int
) -> Float64[Tensor, " row"]:
    """Integrated loudness of each row.

    L = −0.691 + 10 log10 mean(y²), y the K-weighted sound, over blocks of 0.4 s that are above
    −70 LUFS and above (their own loudness − 10 LU)   [ITU-R BS.1770-4, annex 1]

    Args:
        samples: one channel a row, full scale at 1; one shorter than a block is one block.
        sample_rate_hz: rate of the samples.

    Returns:
        LUFS, at least −70.

    Raises:
        InputError: there is no sample.
    """
    if not samples.shape[1]:
        raise InputError("a sound without samples has no loudness")
    weighted = k_weight(samples, sample_rate_hz)
    length = min(round(BLOCK_S * sample_rate_hz), weighted.shape[1])
    blocks = weighted.unfold(1, length, round(STEP_S * sample_rate_hz)).square().mean(dim=2)
    heard = blocks > _power(SILENCE_LUFS)
    gate = _mean_where(blocks, heard) * 10 ** (-RELATIVE_GATE_LU / 10)
    power = _mean_where(blocks, heard & (blocks > gate[:, None]))
    return (OFFSET_LU + 10 * power.clamp_min(1e-30).log10()).clamp_min(SILENCE_LUFS)


def true_peak(samples: Float[Tensor, "row sample"]) -> Float64[Tensor, " row"]:
    """Largest magnitude of each row between the samples as well as on them.

    Four points a sample of the band-limited sound [ITU-R BS.1770-4, annex 2]; the interpolation is
    exact for what is given, with silence before and after it.

    Args:
        samples: one channel a row, full scale at 1.

    Returns:
        Peaks, full scale at 1; 0 for a row without samples.
    """
    if not samples.shape[1]:
        return torch.zeros(len(samples), dtype=torch.float64)
    return oversampled(samples).abs().amax(dim=1)


def oversampled(samples: Float[Tensor, "row sample"]) -> Float64[Tensor, "row point"]:
    """Each sample, and three points between it and the next, of the band-limited sound."""
    num_samples = samples.shape[1]
    length = _quick_length(num_samples + EDGE_SAMPLES)
    spectrum = torch.fft.rfft(samples.detach().cpu().double(), length)
    spectrum[:, -1] /= 2  # the bin at half the rate stands for two once there is more above it
    points: Tensor = torch.fft.irfft(spectrum * POINTS_PER_SAMPLE, POINTS_PER_SAMPLE * length)
    return points[:, : POINTS_PER_SAMPLE * num_samples]


def k_weight(
    samples: Float[Tensor, "row sample"], sample_rate_hz: int
) -> Float64[Tensor, "row sample"]:
    """Filter as a head does: 4 dB more above 1.7 kHz, little below 40 Hz.

    The standard lists its filters at 48 kHz; their response at a frequency is taken from there for
    every rate, so that a sound is as loud at 16 kHz as at 48.
    """
    num_samples = samples.shape[1]
    length = _quick_length(num_samples + round(RINGING_S * sample_rate_hz))
    bins_hz = torch.fft.rfftfreq(length, 1 / sample_rate_hz, dtype=torch.float64)
    turn = bins_hz.clamp_max(LISTED_RATE_HZ / 2) * (2 * math.pi / LISTED_RATE_HZ)
    spectrum = torch.fft.rfft(samples.detach().cpu().double(), length)
    response = _response(HEAD_SHELF, turn) * _response(RUMBLE_CUT, turn)
    weighted: Tensor = torch.fft.irfft(spectrum * response, length)
    return weighted[:, :num_samples]


def _quick_length(at_least: int) -> int:
    """The next length m·2^k, m of 8 to 15: one with a large prime takes three times as long."""
    power = 1 << max(1, (at_least - 1).bit_length() - 4)
    return next(m * power for m in (8, 9, 10, 12, 15, 16) if m * power >= at_least)


def _response(biquad: Biquad, turn: Float64[Tensor, " bin"]) -> Complex128[Tensor, " bin"]:
    delay = torch.exp(-1j * turn)
    (b0, b1, b2), (a1, a2) = biquad
    return (b0 + b1 * delay + b2 * delay**2) / (1.0 + a1 * delay + a2 * delay**2)


def _power(lufs: float) -> float:
    return float(10 ** ((lufs - OFFSET_LU) / 10))


def _mean_where(values: Float64[Tensor, "row block"], chosen: Tensor) -> Float64[Tensor, " row"]:
    return torch.where(chosen, values, 0.0).sum(dim=1) / chosen.sum(dim=1).clamp_min(1)
