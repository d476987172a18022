"""What a vocoder is trained to do: the recording's spectra at several resolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.audio.mel import MelConfig, mel_basis

SILENCE = 2e-5
"""Magnitudes below this do not count; a full-scale sine has 0.5."""
MASKED = 2e-4
"""The same, as a share of the row's loudest magnitude: 74 dB below it nothing is heard."""
ENERGY_FLOOR, MEAN_FLOOR = 1e-2, 1e-3
"""Keep a silent target from dividing by zero: of the norm, of the mean."""

STFT_SIZES = (256, 512, 1024, 2048, 4096)
MOST_BANDS = 128


@dataclass(frozen=True)
class VocoderLoss:
    """The parts of the objective, means over cells and over resolutions."""

    log_magnitude: Float[Tensor, ""]
    convergence: Float[Tensor, ""]
    bands: Float[Tensor, ""]
    complex_error: Float[Tensor, ""]


def vocoder_loss(
    predicted: Float[Tensor, "row sample"],
    target: Float[Tensor, "row sample"],
    sample_rate_hz: int,
    sizes: Sequence[int] = STFT_SIZES,
    with_phase: bool = True,
    second: Float[Tensor, "row sample"] | None = None,
    variety: float = 1.0,
) -> VocoderLoss:
    """Multi-resolution STFT distance between two waveforms.

    Per resolution, with S = |STFT(target)|, Ŝ = |STFT(predicted)| and a floor f:
    log-magnitude |log(Ŝ + f) − log(S + f)|₁, spectral convergence ‖Ŝ − S‖ / ‖S‖
    [arXiv:1910.11480, eq. 4–6], the log-magnitude again over mel bands, where the chance of single
    noisy cells averages out, and a complex term |STFT(predicted − target)| / mean S that is the
    only one to see phase.

    With a second sound from the same mel and other noise, each of the first three distances d is
    ½ (d(y, x) + d(y', x) − v · d(y, y')), for v = 1 the energy distance [arXiv:2008.01160, eq. 4].
    Without the last term a steady spectrum is always closer to noise than other noise is, and rain
    is answered with a chord. For normal values noise costs 1 − v/2 and the best steady answer 0.71,
    so noise is right for v > 0.59; a v below 1 leans to what is certain, such as harmonics.

    Args:
        predicted: waveform from the vocoder.
        target: the recording, same length.
        sample_rate_hz: of both.
        sizes: window lengths in samples; hops are a quarter of them.
        with_phase: whether the complex term is wanted; it is 0 otherwise.
        second: another waveform from the vocoder.
        variety: v, from 0 to 1.
    """
    waves = [target, predicted] if second is None else [target, predicted, second]
    parts = [_stft_distance(waves, sample_rate_hz, size, with_phase, variety) for size in sizes]
    return VocoderLoss(*(torch.stack(values).mean() for values in zip(*parts, strict=True)))


def _stft_distance(
    waves: Sequence[Float[Tensor, "row sample"]],
    sample_rate_hz: int,
    size: int,
    with_phase: bool,
    variety: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    window = torch.hann_window(size, device=waves[0].device)
    spectra = [
        torch.stft(wave, size, size // 4, window=window, return_complex=True) * (2.0 / size)
        for wave in waves
    ]
    cells = [_magnitude(spectrum) for spectrum in spectra]
    floor = SILENCE + MASKED * cells[0].amax(dim=(1, 2), keepdim=True)
    energy = cells[0].norm(dim=(1, 2)) + ENERGY_FLOOR
    basis = _band_means(sample_rate_hz, size).to(window.device)
    logs = [(cell + floor).log() for cell in cells]
    bands = [(basis @ cell + floor).log() for cell in cells]
    error = energy.new_zeros(len(energy))
    if with_phase:
        difference = _magnitude(spectra[1] - spectra[0]).mean(dim=(1, 2))
        error = difference / (cells[0].mean(dim=(1, 2)) + MEAN_FLOOR)
    return (
        energy_distance(logs, lambda a, b: (a - b).abs().mean(), variety),
        energy_distance(cells, lambda a, b: ((a - b).norm(dim=(1, 2)) / energy).mean(), variety),
        energy_distance(bands, lambda a, b: (a - b).abs().mean(), variety),
        error.mean(),
    )


def energy_distance(
    values: Sequence[Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    variety: float = 1.0,
) -> Tensor:
    """Of what was made from what was recorded, which comes first."""
    recorded, made, *others = values
    if not others:
        return distance(made, recorded)
    (other,) = others
    to_recorded = distance(made, recorded) + distance(other, recorded)
    return 0.5 * (to_recorded - variety * distance(made, other))


def _magnitude(spectrum: Tensor) -> Tensor:
    return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()


@lru_cache(maxsize=32)
def _band_means(sample_rate_hz: int, size: int) -> Float[Tensor, "band bin"]:
    """Mel filters that add up to one: about two bins to a band, at most 128 bands."""
    config = MelConfig(
        sample_rate_hz=sample_rate_hz,
        n_fft=size,
        hop_samples=size // 4,
        num_bands=min(size // 16, MOST_BANDS),
        max_hz=sample_rate_hz / 2,
        log="ln",
    )
    basis = mel_basis(config)
    return (basis / basis.sum(dim=1, keepdim=True).clamp_min(1e-9)).float()
