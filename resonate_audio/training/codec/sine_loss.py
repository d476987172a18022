"""Where the sines of a recording are: what the vocoder's own sines are drawn to."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from resonate_audio.audio.mel import MelConfig, mel_basis, mel_edges

POWER_FLOOR = 1e-9
HEARD_NATS = 12.0
"""Of power, 52 dB: how far below the loudest band of a clip a frequency still counts."""
LEAKAGE_HZ = 40.0
"""A bin belongs to a sine no further away than that."""
MOST_OFF = 3.0
"""A miss of more band widths costs no more."""


def band_frequencies(
    wave: Float[Tensor, "row sample"], config: MelConfig
) -> tuple[Float[Tensor, "row hop band"], Float[Tensor, "row hop band"]]:
    """Mean frequency in each band, Hz, and the band's log-power in nats.

    A bin's frequency is the turn of its phase from one sample to the next, arg(S(n+1) S(n)*),
    which needs no unwrapping; bins count by their power.

    Args:
        wave: samples at the configured rate.
        config: the mel front end whose hops and bands are meant.
    """
    pad = config.pad_samples
    longer = F.pad(wave[:, None], (pad, pad + 1), mode="reflect")[:, 0]
    window = torch.hann_window(config.n_fft, device=wave.device)
    now, next_ = (
        torch.stft(
            part, config.n_fft, config.hop_samples, window=window, center=False, return_complex=True
        )
        for part in (longer[:, :-1], longer[:, 1:])
    )
    power = now.real.square() + now.imag.square() + POWER_FLOOR
    per_radian = config.sample_rate_hz / (2 * math.pi)
    hz = torch.angle(next_ * now.conj()) * per_radian
    bins = torch.arange(config.num_bins, device=wave.device)[:, None]
    middle = bins * (config.sample_rate_hz / config.n_fft)
    hz = torch.where(hz < 0, hz + config.sample_rate_hz, hz)
    hz = hz.maximum(middle - LEAKAGE_HZ).minimum(middle + LEAKAGE_HZ)
    basis = mel_basis(config).float().to(wave.device)
    band_power = basis @ power
    return ((basis @ (power * hz)) / band_power).transpose(1, 2), band_power.log().transpose(1, 2)


def sine_loss(
    sine_hz: Float[Tensor, "row hop sine"], wave: Float[Tensor, "row sample"], config: MelConfig
) -> Float[Tensor, ""]:
    """Mean distance of sines from what sounds in their bands, in band widths, loud bands first."""
    hz, log_power = band_frequencies(wave, config)
    count = sine_hz.shape[-1]
    hz, log_power = hz[..., :count], log_power[..., :count]
    edges = mel_edges(config).float().to(wave.device)
    width = 0.3 * (edges[2:] - edges[:-2])[:count]
    loudest = log_power.amax(dim=(1, 2), keepdim=True).clamp_min(0.0)
    weight = (1 + (log_power - loudest) / HEARD_NATS).clamp(0, 1)
    return (weight * ((sine_hz - hz) / width).abs().clamp(max=MOST_OFF)).mean()
