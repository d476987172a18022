"""A small judge of spectrograms, for vocoders trained against an adversary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from resonate_audio.training.codec.vocoder_loss import energy_distance

SLOPE = 0.1
PATCH_BINS, PATCH_FRAMES = 16, 4
CELL_VALUES = 3
POWER_FLOOR = 1e-8


@dataclass(frozen=True)
class Judgement:
    """What one resolution thinks, and the layers it thought with."""

    score: Float[Tensor, "row place"]
    layers: tuple[Tensor, ...]


class SpectrogramJudge(nn.Module):
    """Looks at patches of 16 bins × 4 frames of the STFT at one resolution, and their neighbours.

    Patches instead of convolutions over cells [arXiv:2210.13438, sec. 3.4]: the same fields of
    view, as matrix products that a CPU is fast at.
    """

    def __init__(self, n_fft: int, width: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.num_groups = n_fft // 2 // PATCH_BINS
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.read = nn.Linear(PATCH_BINS * PATCH_FRAMES * CELL_VALUES, width)
        self.place = nn.Parameter(torch.empty(self.num_groups, 1, width).normal_(std=0.02))
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(width, 1)

    def forward(self, wave: Float[Tensor, "row sample"]) -> Judgement:
        """Score every patch of the spectrogram: 1 = recorded, 0 = made."""
        x = F.leaky_relu(self.read(self.patches(wave)) + self.place, SLOPE)
        layers = [x]
        x = x.permute(0, 3, 1, 2)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            layers.append(x)
        return Judgement(self.head(x.permute(0, 2, 3, 1)).float().flatten(1), tuple(layers))

    def patches(self, wave: Float[Tensor, "row sample"]) -> Float[Tensor, "row group patch value"]:
        """The spectrogram cut up: the highest bin and a rest of frames are dropped.

        A cell is its complex value with the magnitude to the power 0.3, and its logarithm: a judge
        of plain magnitudes would hear nothing but the loudest.
        """
        with torch.autocast(wave.device.type, enabled=False):
            spectrum = self.spectrum(wave.float())[:, :-1]
            power = spectrum.real.square() + spectrum.imag.square() + POWER_FLOOR
            gain = power.pow(-0.35)
            cells = torch.stack(
                [spectrum.real * gain, spectrum.imag * gain, power.log() / 16 + 0.5], dim=-1
            )
            num_patches = cells.shape[2] // PATCH_FRAMES
            cells = cells[:, :, : num_patches * PATCH_FRAMES]
            grid = (self.num_groups, PATCH_BINS, num_patches, PATCH_FRAMES, CELL_VALUES)
            return cells.reshape(len(wave), *grid).transpose(2, 3).flatten(3)

    def spectrum(self, wave: Float[Tensor, "row sample"]) -> Complex[Tensor, "row bin hop"]:
        """STFT with hops of a quarter window; noise has the same level at every resolution."""
        spectrum = torch.stft(
            wave,
            self.n_fft,
            self.n_fft // 4,
            window=self.window,  # type: ignore[arg-type]
            return_complex=True,
        )
        return spectrum * (2 / math.sqrt(1.5 * self.n_fft))


class SpectrogramJudges(nn.Module):
    """One judge per resolution."""

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.judges = nn.ModuleList(SpectrogramJudge(size, width) for size in sizes)

    def forward(
        self, wave: Float[Tensor, "row sample"], chosen: Sequence[int] | None = None
    ) -> list[Judgement]:
        """The opinions of all judges, or of the chosen ones."""
        numbers = range(len(self.judges)) if chosen is None else chosen
        return [self.judges[number](wave) for number in numbers]


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


def feature_loss(
    recorded: Sequence[Judgement],
    made: Sequence[Judgement],
    second: Sequence[Judgement] | None = None,
) -> Float[Tensor, ""]:
    """Mean absolute difference of the judges' layers, each over the mean size of the recording's.

    [arXiv:2210.13438, eq. 6]; with a second draw of the same sound it is the energy distance, as in
    `vocoder_loss`.
    """
    terms = []
    for number, (r, m) in enumerate(zip(recorded, made, strict=True)):
        others = [second[number].layers] if second else []
        for values in zip(r.layers, m.layers, *others, strict=True):
            size = values[0].detach().abs().mean().clamp_min(1e-6)
            distance = energy_distance(values, lambda a, b: (a - b).abs().mean())
            terms.append(distance / size)
    return torch.stack(terms).mean()
