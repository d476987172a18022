"""Fit the linear VAE: one pass over the clips, one eigendecomposition."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.audio.mel import MelConfig, MelFrontEnd
from resonate_audio.data.waveforms import WaveformSet
from resonate_audio.model.linear_vae import LinearVAE

MAX_CLIP_S = 16
"""Of a long clip only so much is looked at, or it would weigh more than many short ones."""


def fit_linear_vae(model: LinearVAE, mels: Iterable[Float[Tensor, "_ _ _"]]) -> int:
    """Set the maximum-likelihood weights for the patches of some mels.

    Sums are kept in float64: the covariance is a difference of large numbers.

    Returns:
        The number of patches seen.
    """
    size = model.config.patch_size
    count, first = 0, torch.zeros(size, dtype=torch.float64)
    second, floor = torch.zeros(size, size, dtype=torch.float64), torch.tensor(math.inf)
    ceiling = torch.full((model.config.num_bands,), -math.inf)
    for mel in mels:
        mel = model.lift(mel)
        patches = model.patches(mel).flatten(0, 1).double()
        count += len(patches)
        first += patches.sum(0)
        second += patches.T @ patches
        floor = torch.minimum(floor, mel.min())
        ceiling = torch.maximum(ceiling, mel.amax(dim=(0, 2)))
    mean = first / count
    model.fit(mean.float(), second / count - torch.outer(mean, mean), float(floor), ceiling)
    return count


def clip_mels(
    waves: WaveformSet, config: MelConfig, num_clips: int
) -> Iterable[Float[Tensor, "_ _ _"]]:
    """Mels of up to ``num_clips`` evenly spaced clips, each at its own length."""
    mel, most = MelFrontEnd(config), MAX_CLIP_S * config.sample_rate_hz
    step = max(1, len(waves.clips) // num_clips)
    for clip in range(0, len(waves.clips), step):
        length = min(int(waves.lengths[clip]), most)
        if length >= config.n_fft:
            yield mel(waves.wave(clip, 0, length)[None])
