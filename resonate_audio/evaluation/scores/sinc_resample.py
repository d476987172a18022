"""The resampler that papers measured with: torchaudio's default, from its formula.

It is coarser than soxr (0.06 in the top log-mel bands), so it serves `paper` mode only, where
numbers must be comparable with printed ones.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

ZEROS = 6
"""Zero crossings of the kernel on each side."""
ROLLOFF = 0.99
"""Cut-off, as a share of the lower of the two Nyquist frequencies."""


def sinc_resample(
    samples: Float32[Tensor, "row sample"], from_hz: int, to_hz: int
) -> Float32[Tensor, "row sample2"]:
    """Change the sample rate with a sinc under a Hann window.

    y(j/r₂) = Σ_n x(n/r₁) h(j/r₂ − n/r₁),  h(t) = (c/r₁) sinc(c t) cos²(π c t / 2Z) for |c t| < Z,
    c = 0.99 min(r₁, r₂), Z = 6   [Smith, Digital Audio Resampling, 2002]

    Args:
        samples: at ``from_hz``.
        from_hz: their rate.
        to_hz: rate of the result, of ceil(length · r₂ / r₁) samples.
    """
    if from_hz == to_hz:
        return samples
    shared = math.gcd(from_hz, to_hz)
    old, new = from_hz // shared, to_hz // shared
    kernels, width = _kernels(old, new)
    padded = F.pad(samples, (width, width + old))
    phases = F.conv1d(padded[:, None], kernels.float()[:, None], stride=old)
    length = math.ceil(samples.shape[1] * new / old)
    return phases.transpose(1, 2).flatten(1)[:, :length].contiguous()


def _kernels(old: int, new: int) -> tuple[Float[Tensor, "phase tap"], int]:
    """The kernel at each of the ``new`` places between samples, and its reach in samples."""
    cutoff = ROLLOFF * min(old, new)
    width = math.ceil(ZEROS * old / cutoff)
    taps = torch.arange(-width, width + old, dtype=torch.float64) / old
    places = torch.arange(new, dtype=torch.float64) / new
    turns = ((places[:, None] - taps) * cutoff).clamp(-ZEROS, ZEROS)
    window = torch.cos(math.pi * turns / (2 * ZEROS)).square()
    return torch.special.sinc(turns) * window * (cutoff / old), width
