"""A small judge of spectrograms, for vocoders trained against an adversary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1


@dataclass(frozen=True)
class Judgement:
    """What one resolution thinks, and the layers it thought with."""

    score: Float[Tensor, "row place"]
    layers: tuple[Tensor, ...]


class SpectrogramJudge(nn.Module):
    """Convolutions over the complex STFT at one resolution [arXiv:2210.13438, sec. 3.4]."""

    def __init__(self, n_fft: int, width: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        strided = [_layer(width if i else 2, width, 9, 2, dilation=2**i) for i in range(3)]
        self.layers = nn.ModuleList([*strided, _layer(width, width, 3, 1, dilation=1)])
        self.head = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, wave: Float[Tensor, "row sample"]) -> Judgement:
        """Score every place of the spectrogram: 1 = recorded, 0 = made."""
        x = self.spectrum(wave)
        x = torch.stack([x.real, x.imag], dim=1).transpose(2, 3)
        layers = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            layers.append(x)
        return Judgement(self.head(x).flatten(1), tuple(layers))

    def spectrum(self, wave: Float[Tensor, "row sample"]) -> Complex[Tensor, "row bin hop"]:
        """Orthonormal STFT with hops of a quarter window."""
        return torch.stft(
            wave.float(),
            self.n_fft,
            self.n_fft // 4,
            window=self.window,  # type: ignore[arg-type]
            normalized=True,
            return_complex=True,
        )


def _layer(num_in: int, num_out: int, bins: int, stride: int, dilation: int) -> nn.Module:
    """Three hops, dilated, by ``bins`` bins, strided."""
    conv = nn.Conv2d(
        num_in,
        num_out,
        (3, bins),
        (1, stride),
        dilation=(dilation, 1),
        padding=(dilation, bins // 2),
    )
    normed: nn.Module = weight_norm(conv)
    return normed


class SpectrogramJudges(nn.Module):
    """One judge per resolution."""

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.judges = nn.ModuleList(SpectrogramJudge(size, width) for size in sizes)

    def forward(self, wave: Float[Tensor, "row sample"]) -> list[Judgement]:
        """Every judge's opinion."""
        return [judge(wave) for judge in self.judges]


def judge_loss(recorded: Sequence[Judgement], made: Sequence[Judgement]) -> Float[Tensor, ""]:
    """Least squares: recordings to 1, made sounds to 0         [arXiv:1611.04076, eq. 2]."""
    terms = [
        (r.score - 1).square().mean() + m.score.square().mean()
        for r, m in zip(recorded, made, strict=True)
    ]
    return torch.stack(terms).mean()


def fooling_loss(made: Sequence[Judgement]) -> Float[Tensor, ""]:
    """Least squares: made sounds to 1."""
    return torch.stack([(m.score - 1).square().mean() for m in made]).mean()


def feature_loss(recorded: Sequence[Judgement], made: Sequence[Judgement]) -> Float[Tensor, ""]:
    """Mean absolute difference of the judges' layers, each over the mean size of the recording's.

    [arXiv:2210.13438, eq. 6]
    """
    terms = [
        (a.detach() - b).abs().mean() / a.detach().abs().mean().clamp_min(1e-6)
        for r, m in zip(recorded, made, strict=True)
        for a, b in zip(r.layers, m.layers, strict=True)
    ]
    return torch.stack(terms).mean()
