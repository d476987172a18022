"""Signs that a generator pleases its judge and nobody else: logged beside every reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from resonate_audio.audio.mel import MelConfig, MelFrontEnd
from resonate_audio.core.errors import InputError, ShapeError
from resonate_audio.core.types import Waveform
from resonate_audio.rewards.loudness import loudness_lufs

FULL_SCALE = 1 - 2**-15
"""Samples from here on have no room left in 16 bits."""
SILENCE_DB = -60.0
"""Frames under this level, in dB of full scale, count as silent."""
FRAME_S = 0.05
HIGH_HZ = 8_000.0
MEL_WINDOW_S, MEL_BANDS = 0.046, 64
SHORTEST_TREND = 4
"""Fewer points than this say nothing about a slope and its error."""


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


@dataclass(frozen=True)
class RewardDivergence:
    """The judge that trains is more and more pleased, the one that does not less and less."""

    training_slope: float
    """Rise of the training reward from one evaluation to the next."""
    held_out_slope: float
    """The same of the held-out one: negative."""
    window: int
    """Evaluations that both slopes are fitted to."""

    def __str__(self) -> str:
        return (
            f"over {self.window} evaluations the training reward rises by "
            f"{self.training_slope:.3g} each and the held-out one falls by "
            f"{-self.held_out_slope:.3g}: the training judge is being gamed; stop, or take "
            "an earlier checkpoint"
        )


def find_divergence(
    training: Sequence[float], held_out: Sequence[float], window: int = 8, min_t: float = 2.0
) -> RewardDivergence | None:
    """Look whether the training reward rises while the held-out one falls.

    A slope counts when it is ``min_t`` times its own standard error or more, so that noise
    around two level lines is called divergence once in a few hundred times.

    Args:
        training: scores at evaluation after evaluation.
        held_out: scores of the judge that does not train, at the same evaluations.
        window: how many of the last evaluations count; fewer give no answer.
        min_t: how clear a slope has to be.

    Returns:
        Both slopes if they diverge, else None.

    Raises:
        InputError: the series differ in length, or the window has fewer than 4 points.
    """
    if len(training) != len(held_out) or window < SHORTEST_TREND:
        raise InputError(
            f"{len(training)} training and {len(held_out)} held-out scores in windows of {window}: "
            f"expected as many of each, and windows of {SHORTEST_TREND} or more"
        )
    if len(training) < window:
        return None
    rise, rise_t = _slope(training[-window:])
    fall, fall_t = _slope(held_out[-window:])
    if rise_t >= min_t and fall_t <= -min_t:
        return RewardDivergence(rise, fall, window)
    return None


def _slope(values: Sequence[float]) -> tuple[float, float]:
    """Least-squares slope of evenly spaced values, and how many standard errors it is."""
    y = torch.tensor(values, dtype=torch.float64)
    x = torch.arange(len(values), dtype=torch.float64) - (len(values) - 1) / 2
    slope = (x * y).sum() / x.square().sum()
    residual = (y - y.mean() - slope * x).square().sum()
    error = (residual / (len(values) - 2) / x.square().sum()).sqrt()
    return float(slope), float(slope / error.clamp_min(1e-12))
