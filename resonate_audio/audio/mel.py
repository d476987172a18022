"""Log-mel spectrograms, framed so that hop i of the mel is hop i of the waveform."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Float64
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from resonate_audio.core.config import NetworkConfig
from resonate_audio.core.errors import ShapeError

POWER_FLOOR = 1e-9
"""Added to re² + im² before the square root, so that its gradient is finite at silence."""
MEL_FLOOR = 1e-5
"""Smallest mel magnitude: the logarithm never goes below it."""


class MelConfig(NetworkConfig):
    """The numbers of one mel front end."""

    sample_rate_hz: PositiveInt
    n_fft: int = Field(gt=0, le=65_536)
    """Window and transform length, samples."""
    hop_samples: PositiveInt
    num_bands: int = Field(gt=0, le=4096)
    min_hz: float = 0.0
    max_hz: PositiveFloat
    log: Literal["ln", "log10"]

    @model_validator(mode="after")
    def _fits(self) -> MelConfig:
        if self.hop_samples > self.n_fft or (self.n_fft - self.hop_samples) % 2:
            raise ValueError(
                f"hop_samples {self.hop_samples} and n_fft {self.n_fft}: expected a hop no longer "
                "than the window, and an even difference"
            )
        if not 0 <= self.min_hz < self.max_hz <= self.sample_rate_hz / 2:
            raise ValueError(
                f"bands from {self.min_hz} to {self.max_hz} Hz: expected "
                f"0 <= min_hz < max_hz <= {self.sample_rate_hz / 2}"
            )
        return self

    @property
    def pad_samples(self) -> int:
        """Reflected samples on each side; n samples then give n // hop_samples hops."""
        return (self.n_fft - self.hop_samples) // 2

    @property
    def num_bins(self) -> int:
        """Bins of the one-sided spectrum."""
        return self.n_fft // 2 + 1

    @property
    def hop_rate_hz(self) -> float:
        """Hops per second."""
        return self.sample_rate_hz / self.hop_samples

    @property
    def floor(self) -> float:
        """Value of the log-mel at digital silence and below."""
        return math.log(MEL_FLOOR) if self.log == "ln" else math.log10(MEL_FLOOR)


MEL_44K = MelConfig(
    sample_rate_hz=44_100, n_fft=2048, hop_samples=512, num_bands=128, max_hz=22_050, log="ln"
)
MEL_16K = MelConfig(
    sample_rate_hz=16_000, n_fft=1024, hop_samples=256, num_bands=80, max_hz=8_000, log="log10"
)


class MelFrontEnd(nn.Module):
    """Waveform to log-mel: log(max(M · sqrt(|STFT|² + 1e-9), 1e-5)).

    The frames are not centred: the wave is clamped to ±1 and reflected by (n_fft − hop)/2 on each
    side, so hop i is centred on sample (i + ½)·hop. Always float32: a logarithm of bf16 power
    loses the quiet half of the spectrum.
    """

    window: Tensor
    basis: Tensor

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.register_buffer("basis", mel_basis(config).float(), persistent=False)

    def forward(self, wave: Float[Tensor, "row sample"]) -> Float32[Tensor, "row band hop"]:
        """Analyse waveforms.

        Args:
            wave: samples in [-1, 1] at the configured rate; what is outside is clamped.

        Returns:
            Log-mel of num_samples // hop_samples hops, in nats or decades of magnitude.

        Raises:
            ShapeError: the wave is too short to be reflected at its ends.
        """
        magnitude = (self.power(wave) + POWER_FLOOR).sqrt()
        mel = (self.basis @ magnitude).clamp(min=MEL_FLOOR)
        return mel.log() if self.config.log == "ln" else mel.log10()

    def power(self, wave: Float[Tensor, "row sample"]) -> Float32[Tensor, "row bin hop"]:
        """Power spectrum re² + im² of the frames the mel is made of.

        Raises:
            ShapeError: the wave is too short to be reflected at its ends.
        """
        config = self.config
        num_samples, needed = wave.shape[-1], max(config.pad_samples + 1, config.hop_samples)
        if num_samples < needed:
            raise ShapeError(
                f"waveform of {num_samples} samples: a mel needs at least {needed} "
                f"({needed / config.sample_rate_hz:.3f} s); pad it with zeros"
            )
        padded = F.pad(wave.float().clamp(-1, 1), (config.pad_samples,) * 2, mode="reflect")
        spectrum = torch.stft(
            padded,
            config.n_fft,
            hop_length=config.hop_samples,
            window=self.window,
            center=False,
            return_complex=True,
        )
        return spectrum.real.square() + spectrum.imag.square()


def mel_basis(config: MelConfig) -> Float64[Tensor, "band bin"]:
    """Triangular filters on Slaney's mel scale, each of unit area in Hz (Slaney's norm).

    Band b rises from edge b to edge b+1 and falls to edge b+2, the num_bands + 2 edges being
    equally spaced in mel; its height is 2 / (edge b+2 − edge b).
    """
    edges = mel_edges(config)
    bins = torch.linspace(0, config.sample_rate_hz / 2, config.num_bins, dtype=torch.float64)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
    return triangles.clamp(min=0) * 2 / (high - low)


def mel_edges(config: MelConfig) -> Float64[Tensor, " edge"]:
    """Frequencies, Hz, where the filters begin, peak and end: num_bands + 2, equal steps in mel."""
    ends = _hz_to_mel(torch.tensor([config.min_hz, config.max_hz], dtype=torch.float64))
    steps = torch.linspace(0, 1, config.num_bands + 2, dtype=torch.float64)
    return _mel_to_hz(ends[0] + (ends[1] - ends[0]) * steps)


# Slaney's scale (Auditory Toolbox, 1998): linear to 1 kHz at 200/3 Hz a mel, then 27 mels for
# each factor of 6.4.
_LINEAR_HZ_PER_MEL = 200 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27


def _hz_to_mel(hz: Tensor) -> Tensor:
    above = _BREAK_MEL + (hz.clamp(min=_BREAK_HZ) / _BREAK_HZ).log() / _LOG_STEP
    return torch.where(hz < _BREAK_HZ, hz / _LINEAR_HZ_PER_MEL, above)


def _mel_to_hz(mel: Tensor) -> Tensor:
    above = _BREAK_HZ * ((mel.clamp(min=_BREAK_MEL) - _BREAK_MEL) * _LOG_STEP).exp()
    return torch.where(mel < _BREAK_MEL, mel * _LINEAR_HZ_PER_MEL, above)
