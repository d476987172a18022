"""Where the sines of a recording are: what the vocoder's own sines and noise are drawn to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from resonate_audio.audio.mel import MelConfig, mel_basis, mel_edges

POWER_FLOOR = 1e-9
HEARD_NATS = 12.0
"""Of power, 52 dB: how far below the loudest band of a clip a band still counts."""
LEAKAGE_HZ = 40.0
"""A bin belongs to a sine no further away than that."""
ONE_SINE_HZ = 6.0
"""Bins whose frequencies differ by less are one sine; those of noise differ by 15."""
MOST_OFF = 3.0
"""A miss of more band widths costs no more."""


@dataclass(frozen=True)
class Bands:
    """What sounds in each band of a recording."""

    hz: Float[Tensor, "row hop band"]
    """Mean frequency of the bins, by power."""
    tonality: Float[Tensor, "row hop band"]
    """1 where all bins have one frequency, near 0 where each has its own."""
    weight: Float[Tensor, "row hop band"]
    """1 for the loudest band of the clip, 0 for those that nobody hears beside it."""
    width_hz: Float[Tensor, " band"]
    """Distance from one band to the next, about."""


def analyze_bands(wave: Float[Tensor, "row sample"], config: MelConfig) -> Bands:
    """Find the frequency in each band, and whether it is one.

    A bin's frequency is the turn of its phase from one sample to the next, arg(S(n+1) S(n)*),
    which needs no unwrapping; bins count by their power. With v its variance within the band, and
    of the band's mean between hops around, tonality is exp(−v / 2s²).

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
    hz = _bin_frequencies(now, next_, config)
    basis = mel_basis(config).float().to(wave.device)
    band_power = basis @ power
    # measured from the band's middle: the difference of large squares would have no digits left
    edges = mel_edges(config).float().to(wave.device)
    middle = edges[1:-1, None]
    first = (basis @ (power * hz)) / band_power - middle
    second = _second_moment(basis, power, hz, middle, band_power)
    variance = (second - first.square()).clamp_min(0) + _drift(first)
    log_power = band_power.log()
    loudest = log_power.amax(dim=(1, 2), keepdim=True).clamp_min(0.0)
    return Bands(
        hz=(first + middle).transpose(1, 2),
        tonality=(-variance / (2 * ONE_SINE_HZ**2)).exp().transpose(1, 2),
        weight=(1 + (log_power - loudest) / HEARD_NATS).clamp(0, 1).transpose(1, 2),
        width_hz=0.3 * (edges[2:] - edges[:-2]),
    )


def sine_loss(sine_hz: Float[Tensor, "row hop sine"], bands: Bands) -> Float[Tensor, ""]:
    """Mean distance of sines from what sounds in their bands, in band widths, loud bands first."""
    count = sine_hz.shape[-1]
    distance = ((sine_hz - bands.hz[..., :count]) / bands.width_hz[:count]).abs()
    return (bands.weight[..., :count] * distance.clamp(max=MOST_OFF)).mean()


def share_loss(
    sine_share: Float[Tensor, "row hop sine"],
    noise_share: Float[Tensor, "row hop sine"],
    bands: Bands,
) -> Float[Tensor, ""]:
    """Mean distance of amplitudes from √τ and √(1 − τ), τ the tonality, loud bands first.

    Args:
        sine_share: amplitude of a band's sine, in units of one that fills the band.
        noise_share: the same of its noise.
        bands: of the recording.
    """
    count = sine_share.shape[-1]
    tonality = bands.tonality[..., :count]
    distance = (sine_share - tonality.sqrt()).abs() + (noise_share - (1 - tonality).sqrt()).abs()
    return (bands.weight[..., :count] * distance).mean()


def _bin_frequencies(now: Tensor, next_: Tensor, config: MelConfig) -> Tensor:
    """Hz of each bin, no further from its middle than leakage reaches."""
    hz = torch.angle(next_ * now.conj()) * (config.sample_rate_hz / (2 * math.pi))
    hz = torch.where(hz < 0, hz + config.sample_rate_hz, hz)
    bins = torch.arange(config.num_bins, device=now.device)[:, None]
    middle = bins * (config.sample_rate_hz / config.n_fft)
    return hz.maximum(middle - LEAKAGE_HZ).minimum(middle + LEAKAGE_HZ)


def _drift(hz: Float[Tensor, "row band hop"]) -> Float[Tensor, "row band hop"]:
    """Variance of a frequency between two hops before and two after: noise does not keep it."""
    longer = F.pad(hz, (2, 2), mode="replicate")
    return 0.5 * (longer[..., 4:] - longer[..., :-4]).square()


def _second_moment(
    basis: Tensor, power: Tensor, hz: Tensor, middle: Tensor, band_power: Tensor
) -> Tensor:
    """Mean of (f − middle)² per band: ⟨f²⟩ − 2 m ⟨f⟩ + m², in double precision."""
    weights, values = basis.double(), hz.double()
    total = power.double()
    mean = (weights @ (total * values)) / band_power
    square = (weights @ (total * values.square())) / band_power
    return (square - 2 * middle * mean + middle.double().square()).float()
