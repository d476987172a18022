"""The small vocoder: predict a spectrogram with phase, and sum its frames to a waveform.

After Vocos [arXiv:2306.00814]: ConvNeXt blocks at the hop rate, log-magnitude and phase out, one
inverse STFT. Differs from the paper: the mel gives a first guess of the magnitude, which the
network corrects, and fast Griffin-Lim steps may polish the phase.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from resonate_audio.audio.mel import MelConfig, mel_basis
from resonate_audio.core.config import NetworkConfig
from resonate_audio.model.tiling import run_tiled

TAPS = 7
"""Reach of every convolution: three hops to each side."""


class ISTFTVocoderConfig(NetworkConfig):
    """Sizes of the inverse-STFT vocoder."""

    kind: Literal["istft"] = "istft"
    num_bands: PositiveInt = 80
    dim: PositiveInt = 256
    num_layers: PositiveInt = 6
    mlp_dim: PositiveInt = 768
    n_fft: PositiveInt = 1024
    hop_samples: PositiveInt = 256
    sample_rate_hz: PositiveInt = 16_000
    log: Literal["ln", "log10"] = "log10"
    """Logarithm of the mels, whose bands cover 0 Hz to half the sample rate."""
    num_refine: NonNegativeInt = 16
    """Fast Griffin-Lim steps at inference."""
    momentum: float = Field(0.99, ge=0, lt=1.3)
    """Extrapolation of those steps; 0 is plain Griffin-Lim."""

    @model_validator(mode="after")
    def _frames_overlap(self) -> ISTFTVocoderConfig:
        if self.n_fft < 2 * self.hop_samples or (self.n_fft - self.hop_samples) % 2:
            raise ValueError(
                f"n_fft {self.n_fft} with hop_samples {self.hop_samples}: expected at least twice "
                "the hop, and an even difference"
            )
        return self

    @property
    def num_bins(self) -> int:
        """Bins of the one-sided spectrum."""
        return self.n_fft // 2 + 1

    @property
    def pad_samples(self) -> int:
        """Samples of the first frame before the waveform starts."""
        return (self.n_fft - self.hop_samples) // 2

    def mel_config(self) -> MelConfig:
        """The front end whose mels this vocoder reads."""
        return MelConfig(
            sample_rate_hz=self.sample_rate_hz,
            n_fft=self.n_fft,
            hop_samples=self.hop_samples,
            num_bands=self.num_bands,
            max_hz=self.sample_rate_hz / 2,
            log=self.log,
        )


class ISTFTVocoder(nn.Module):
    """Log-mel to waveform, hops × hop_samples samples.

    Frame i is the STFT frame that hop i of the mel was measured on: it starts pad_samples before
    sample i·hop.
    """

    window: Tensor

    def __init__(self, config: ISTFTVocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.sample_rate_hz = config.sample_rate_hz
        self.hop_samples = config.hop_samples
        self.embed = nn.Conv1d(config.num_bands, config.dim, TAPS, padding=TAPS // 2)
        self.norm_in = nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.dim, config.mlp_dim, 1 / config.num_layers)
            for _ in range(config.num_layers)
        )
        self.norm_out = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, 2 * config.num_bins)
        self.envelope = nn.Linear(config.num_bands, config.num_bins)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self._reset_parameters()

    @property
    def halo_hops(self) -> int:
        """Hops to either side that a sample depends on.

        Each refinement step ties frames that share samples; the sum of frames reaches as far as
        the overlap.
        """
        config = self.config
        network = (1 + config.num_layers) * (TAPS // 2)
        shared = -(-config.n_fft // config.hop_samples) - 1
        overlap = -(-config.pad_samples // config.hop_samples)
        return network + config.num_refine * shared + overlap

    def forward(self, mel: Float[Tensor, "row band hop"]) -> Float[Tensor, "row sample"]:
        """Synthesise; phases are refined in evaluation mode only."""
        magnitude, spectrum = self.spectrum(mel)
        if not self.training:
            spectrum = self.refine(magnitude, spectrum)
        return self.synthesize(spectrum)

    def vocode_tiled(
        self, mel: Float[Tensor, "row band hop"], tile_hops: int
    ) -> Float[Tensor, "row sample"]:
        """Synthesise tile by tile: the same samples, in bounded memory."""
        return run_tiled(self, mel, tile_hops, self.halo_hops, self.hop_samples)

    def spectrum(
        self, mel: Float[Tensor, "row band hop"]
    ) -> tuple[Float[Tensor, "row bin hop"], Complex[Tensor, "row bin hop"]]:
        """Predict the STFT of the waveform.

        Returns:
            Magnitude, on the scale of an unnormalised Hann STFT, and magnitude · exp(i·phase).
        """
        mel = mel.to(self.embed.weight.dtype)
        x = self.norm_in(self.embed(mel).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        correction, phase = self.head(self.norm_out(x)).float().transpose(1, 2).chunk(2, dim=1)
        log_magnitude = self.envelope(mel.transpose(1, 2)).float().transpose(1, 2) + correction
        # A full-scale sine has magnitude n_fft / 4; an untrained network must not overflow.
        magnitude = log_magnitude.clamp(max=math.log(self.config.n_fft)).exp()
        return magnitude, torch.polar(magnitude, phase)

    @torch.no_grad()
    def refine(
        self, magnitude: Float[Tensor, "row bin hop"], spectrum: Complex[Tensor, "row bin hop"]
    ) -> Complex[Tensor, "row bin hop"]:
        """Make the phases agree between overlapping frames, keeping the magnitude.

        Fast Griffin-Lim [Perraudin, Balazs, Søndergaard 2013, alg. 2]:
        c_n = P1(P2(t_{n-1})),  t_n = c_n + α (c_n − c_{n-1}), where P1 is the STFT of the inverse
        STFT and P2 imposes the magnitude.

        Args:
            magnitude: what to keep.
            spectrum: where to start; its magnitude is ignored.
        """
        target, previous = spectrum, cast(Tensor | None, None)
        for _ in range(self.config.num_refine):
            consistent = self._analyze(self._overlap_add(_with_magnitude(target, magnitude)))
            step = 0 if previous is None else self.config.momentum * (consistent - previous)
            target, previous = consistent + step, consistent
        return _with_magnitude(target, magnitude)

    def synthesize(self, spectrum: Complex[Tensor, "row bin hop"]) -> Float[Tensor, "row sample"]:
        """Inverse STFT, trimmed to hops × hop_samples samples.

        A loud prediction may pass ±1: the caller scales it, since clipping would distort it here
        and stop its gradient in training.
        """
        pad = self.config.pad_samples
        return self._overlap_add(spectrum)[:, pad:-pad]

    def _overlap_add(self, spectrum: Tensor) -> Tensor:
        """Least-squares inverse over the whole support of the frames (row, sample)."""
        num_hops = spectrum.shape[-1]
        frames = torch.fft.irfft(spectrum, n=self.config.n_fft, dim=1) * self.window[:, None]
        weights = self.window.square()[None, :, None].expand(1, -1, num_hops)
        return self._fold(frames) / self._fold(weights).clamp(min=1e-8)

    def _fold(self, frames: Tensor) -> Tensor:
        n_fft, hop = self.config.n_fft, self.config.hop_samples
        length = (frames.shape[-1] - 1) * hop + n_fft
        return F.fold(frames, (1, length), (1, n_fft), stride=(1, hop))[:, 0, 0]

    def _analyze(self, samples: Tensor) -> Tensor:
        frames = samples.unfold(-1, self.config.n_fft, self.config.hop_samples) * self.window
        spectrum: Tensor = torch.fft.rfft(frames, dim=-1)
        return spectrum.transpose(1, 2)

    def _reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        # Equal phases would put the whole energy of a frame in one click: start them spread.
        num_bins = self.config.num_bins
        nn.init.uniform_(self.head.bias[num_bins:], -math.pi, math.pi)
        weight, bias = envelope_guess(self.config.mel_config())
        with torch.no_grad():
            self.envelope.weight.copy_(weight)
            self.envelope.bias.copy_(bias)


def _with_magnitude(spectrum: Tensor, magnitude: Tensor) -> Tensor:
    # Not polar(magnitude, angle): at zero the angle is noise, and dividing is cheaper.
    return spectrum * (magnitude / spectrum.abs().clamp(min=1e-12))


def envelope_guess(
    config: MelConfig,
) -> tuple[Float[Tensor, "bin band"], Float[Tensor, " bin"]]:
    """Affine map from log-mels to the log-magnitude of a spectrum that is flat inside each band.

    For such a spectrum mel_b = log(|S| · area_b), so ln|S| at a band's centre is ln mel − ln area;
    bins between two centres take the linear mixture.
    """
    basis = mel_basis(config)
    area = basis.sum(dim=1)
    bins = torch.arange(config.num_bins, dtype=torch.float64)
    centres = (basis * bins).sum(dim=1) / area.clamp(min=1e-12)
    right = torch.searchsorted(centres.contiguous(), bins).clamp(1, config.num_bands - 1)
    left = right - 1
    span = (centres[right] - centres[left]).clamp(min=1e-12)
    share = ((bins - centres[left]) / span).clamp(0, 1)
    mixture = F.one_hot(left, config.num_bands) * (1 - share)[:, None]
    mixture = mixture + F.one_hot(right, config.num_bands) * share[:, None]
    base = 1.0 if config.log == "ln" else math.log(10)
    return (mixture * base).float(), -(mixture @ area.clamp(min=1e-12).log()).float()


class ConvNeXtBlock(nn.Module):
    """Depthwise 7-tap convolution, norm, GELU MLP, scaled, on the residual [Vocos sec. 3.3]."""

    def __init__(self, dim: int, mlp_dim: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, TAPS, padding=TAPS // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, mlp_dim)
        self.narrow = nn.Linear(mlp_dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map (row, hop, channel) to the same shape."""
        new = self.norm(self.depthwise(x.transpose(1, 2)).transpose(1, 2))
        return x + self.scale * cast(Tensor, self.narrow(F.gelu(self.widen(new))))
