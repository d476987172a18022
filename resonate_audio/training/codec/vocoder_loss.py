"""What a vocoder is trained to do: the recording's spectra at several resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

FLOOR = 1e-4
"""Magnitudes below this count as silent; a full-scale sine has 0.5."""

ENERGY_FLOOR = 1e-3
"""Keeps a silent target from dividing by zero."""

STFT_SIZES = (256, 512, 1024, 2048)


@dataclass(frozen=True)
class VocoderLoss:
    """The objective and its parts, means over spectrogram cells and over resolutions."""

    total: Float[Tensor, ""]
    log_magnitude: Float[Tensor, ""]
    convergence: Float[Tensor, ""]
    complex_error: Float[Tensor, ""]


def vocoder_loss(
    predicted: Float[Tensor, "row sample"],
    target: Float[Tensor, "row sample"],
    complex_weight: float = 0.5,
    sizes: Sequence[int] = STFT_SIZES,
) -> VocoderLoss:
    """Multi-resolution STFT distance between two waveforms.

    Per resolution, with S = |STFT(target)|, Ŝ = |STFT(predicted)|:
    log-magnitude |log max(Ŝ, f) − log max(S, f)|₁, spectral convergence ‖Ŝ − S‖ / ‖S‖
    [arXiv:1910.11480, eq. 4–6], and a complex term |STFT(predicted − target)| / mean S that is
    the only one to see phase.

    Args:
        predicted: waveform from the vocoder.
        target: the recording, same length.
        complex_weight: weight of the phase-aware term.
        sizes: window lengths in samples; hops are a quarter of them.

    Returns:
        The total and its parts.
    """
    parts = [_stft_distance(predicted, target, size) for size in sizes]
    log_magnitude, convergence, complex_error = (
        torch.stack(p).mean() for p in zip(*parts, strict=True)
    )
    total = log_magnitude + convergence + complex_weight * complex_error
    return VocoderLoss(total, log_magnitude, convergence, complex_error)


def _stft_distance(
    predicted: Float[Tensor, "row sample"], target: Float[Tensor, "row sample"], size: int
) -> tuple[Tensor, Tensor, Tensor]:
    window = torch.hann_window(size, device=target.device)
    scale = 2.0 / float(size)
    got, true = (
        torch.stft(wave, size, size // 4, window=window, return_complex=True) * scale
        for wave in (predicted, target)
    )
    got_magnitude = torch.sqrt(got.real.square() + got.imag.square() + 1e-12)
    true_magnitude = torch.sqrt(true.real.square() + true.imag.square() + 1e-12)
    log_error = (got_magnitude.clamp_min(FLOOR).log() - true_magnitude.clamp_min(FLOOR).log()).abs()
    energy = true_magnitude.norm(dim=(1, 2)) + ENERGY_FLOOR
    convergence = ((got_magnitude - true_magnitude).norm(dim=(1, 2)) / energy).mean()
    difference = got - true
    complex_error = torch.sqrt(difference.real.square() + difference.imag.square() + 1e-12)
    complex_error = (
        complex_error.mean(dim=(1, 2)) / (true_magnitude.mean(dim=(1, 2)) + ENERGY_FLOOR)
    ).mean()
    return log_error.mean(), convergence, complex_error
