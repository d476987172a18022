"""Signs that a generator pleases its judge and nobody else: logged beside every reward."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from resonate_audio.audio.loudness import loudness_lufs
from resonate_audio.audio.mel import MelConfig, MelFrontEnd
from resonate_audio.core.charts import Points
from resonate_audio.core.errors import InputError, ShapeError
from resonate_audio.core.types import Waveform

FULL_SCALE = 1 - 2**-15
"""Samples from here on have no room left in 16 bits."""
SILENCE_DB = -60.0
"""Frames under this level, in dB of full scale, count as silent."""
FRAME_S = 0.05
HIGH_HZ = 8_000.0
MEL_WINDOW_S, MEL_BANDS = 0.046, 64
FEWEST_HELD_OUT = 6
"""Held-out scores in a stretch that is judged at all."""
CLEAR_CHANGE = 3.0
"""Standard errors from which a change counts."""


@dataclass(frozen=True)
class HackSigns:
    """What takes are like, apart from what a judge says of them."""

    clipped_share: Float64[Tensor, " row"]
    """Share of samples at or over full scale."""
    silent_share: Float64[Tensor, " row"]
    """Share of frames of 50 ms under -60 dB."""
    loudness_lufs: Float64[Tensor, " row"]
    """Integrated loudness. Gated, so that a short sound in silence is as loud as it is heard:
    plain RMS would mix level with how long the sound lasts, which ``silent_share`` tells."""
    energy_above_8k_share: Float64[Tensor, " row"]
    """Share of the energy above 8 kHz, where most judges hear nothing."""
    diversity_db: Float64[Tensor, " group"] | None
    """Mean distance of a prompt's takes from each other; None for single takes."""

    def means(self) -> dict[str, float]:
        """Mean of each number, by its name, for logs."""
        values = vars(self).items()
        return {name: float(value.mean()) for name, value in values if value is not None}


def find_hack_signs(audio: Waveform, takes: int = 1) -> HackSigns:
    """Measure takes as they were generated.

    Args:
        audio: rows, prompt-major.
        takes: rows of each prompt.

    Raises:
        ShapeError: the rows do not split into whole groups.
        InputError: there is no sample.
    """
    if not audio.samples.numel():
        raise InputError(f"sounds of shape {tuple(audio.samples.shape)}: nothing to measure")
    return HackSigns(
        clipped_share=clipped_share(audio),
        silent_share=silent_share(audio),
        loudness_lufs=loudness_lufs(audio.samples, audio.sample_rate_hz),
        energy_above_8k_share=energy_share_above(audio, HIGH_HZ),
        diversity_db=group_diversity_db(audio, takes) if takes > 1 else None,
    )


def clipped_share(audio: Waveform) -> Float64[Tensor, " row"]:
    """Share of samples at or over full scale."""
    return (audio.samples.detach().cpu().abs() >= FULL_SCALE).double().mean(dim=1)


def silent_share(audio: Waveform) -> Float64[Tensor, " row"]:
    """Share of frames of 50 ms whose RMS is under -60 dB; a sound under a frame is one frame."""
    samples = audio.samples.detach().cpu().double()
    length = min(round(FRAME_S * audio.sample_rate_hz), samples.shape[1])
    power = samples.unfold(1, length, length).square().mean(dim=2)
    return (power < 10 ** (SILENCE_DB / 10)).double().mean(dim=1)


def energy_share_above(audio: Waveform, frequency_hz: float) -> Float64[Tensor, " row"]:
    """Share of the energy above a frequency; 0 for digital silence."""
    samples = audio.samples.detach().cpu().double()
    power: Tensor = torch.fft.rfft(samples).abs().square()
    power[:, 1:-1] *= 2  # bins that stand for two, but for an odd length's last: below 1e-5 here
    rate_hz = audio.sample_rate_hz
    bins_hz = torch.fft.rfftfreq(samples.shape[1], 1 / rate_hz, dtype=torch.float64)
    high = torch.where(bins_hz > frequency_hz, power, 0.0).sum(dim=1)
    return high / power.sum(dim=1).clamp_min(1e-30)


def group_diversity_db(audio: Waveform, takes: int) -> Float64[Tensor, " group"]:
    """Mean distance between the takes of a prompt; 0 when all are the same sound.

    d = mean over pairs of sqrt(mean over bands and frames of (m_i − m_j)²), m the log-mel in dB

    Args:
        audio: rows, prompt-major.
        takes: rows of each prompt, at least 2.

    Raises:
        ShapeError: the rows do not split into whole groups of two or more.
    """
    num_rows = len(audio.samples)
    if takes < 2 or num_rows % takes:
        raise ShapeError(
            f"{num_rows} rows in groups of {takes}: expected whole groups of 2 or more"
        )
    front_end = MelFrontEnd(_mel_config(audio.sample_rate_hz))
    mel_db = 20 * front_end(audio.samples.detach().cpu()).double()
    groups = mel_db.flatten(1).view(-1, takes, mel_db[0].numel())
    distances = torch.cdist(groups, groups, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.sum(dim=(1, 2)) / (takes * (takes - 1) * math.sqrt(groups.shape[2]))


def _mel_config(sample_rate_hz: int) -> MelConfig:
    window: int = 2 ** round(math.log2(MEL_WINDOW_S * sample_rate_hz))
    return MelConfig(
        sample_rate_hz=sample_rate_hz,
        n_fft=window,
        hop_samples=window // 4,
        num_bands=MEL_BANDS,
        max_hz=sample_rate_hz / 2,
        log="log10",
    )


def rewards_diverge(reward: Points, held_out: Points) -> bool:
    """Whether the training reward rose while a judge that no training uses went down.

    A change is the mean of a stretch's second half minus that of its first, and counts from three
    standard errors on: Δ > 3·√(s₁²/n₁ + s₂²/n₂). Looked at are the whole run and its last half,
    since a policy often learns something real before it learns the judge's weaknesses.

    Args:
        reward: training reward by step.
        held_out: the held-out judge's score by step; fewer than six in a stretch say nothing.
    """
    return any(
        _change(_between(reward, stretch)) > 0 > _change(stretch)
        for stretch in (held_out, held_out[len(held_out) // 2 :])
        if len(stretch) >= FEWEST_HELD_OUT
    )


def _between(points: Points, stretch: Points) -> Points:
    first, last = stretch[0][0], stretch[-1][0]
    return tuple(point for point in points if first <= point[0] <= last)


def _change(points: Points) -> float:
    """Second half minus first half; 0 where that is within the noise."""
    values = [value for _, value in points]
    halves = values[: len(values) // 2], values[len(values) // 2 :]
    if min(len(half) for half in halves) < 2:
        return 0.0
    change = statistics.fmean(halves[1]) - statistics.fmean(halves[0])
    error = math.sqrt(sum(statistics.variance(half) / len(half) for half in halves))
    rounding = 1e-12 * max(abs(value) for value in values)
    return change if abs(change) > CLEAR_CHANGE * error + rounding else 0.0
