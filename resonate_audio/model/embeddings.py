"""Sinusoids: the noise level as a vector, and positions as rotations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

SLOWEST_PERIOD = 10_000.0
TIMESTEP_FEATURES = 256


def frequencies(num_features: int, device: torch.device) -> Float[Tensor, " frequency"]:
    """Angular frequencies 10000^(-2i/d), i = 0 … d/2 − 1 [arXiv:1706.03762, sec. 3.5]."""
    exponents = torch.arange(0, num_features, 2, dtype=torch.float32, device=device) / num_features
    return 1.0 / SLOWEST_PERIOD**exponents


def timestep_features(t: Float[Tensor, " row"]) -> Float[Tensor, "row feature"]:
    """Write a noise level as cosines, then sines; t is used as it is, not multiplied by 1000.

    Args:
        t: noise level in [0, 1], 1 = noise.

    Returns:
        float32 features (cos(t·f_0) … cos(t·f_127), sin(t·f_0) … sin(t·f_127)).
    """
    angles = t.float()[:, None] * frequencies(TIMESTEP_FEATURES, t.device)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Sinusoids of the noise level → linear → SiLU → linear."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(TIMESTEP_FEATURES, hidden)
        self.outer = nn.Linear(hidden, hidden)

    def forward(self, t: Float[Tensor, " row"]) -> Float[Tensor, "row hidden"]:
        """Embed noise levels in [0, 1]."""
        features = timestep_features(t).to(next(self.inner.parameters()).dtype)
        embedded: Tensor = self.outer(nn.functional.silu(self.inner(features)))
        return embedded


def rotary_angles(
    num_positions: int, head_dim: int, device: torch.device
) -> Float[Tensor, "position pair"]:
    """Angle of each coordinate pair at each position: p · 10000^(-2i/d).

    RoPE [arXiv:2104.09864, eq. 15]. Computed on every call rather than kept in a buffer, which a
    change of the model's dtype would round; it costs well under a thousandth of a forward.

    Args:
        num_positions: positions 0 … num_positions − 1.
        head_dim: d, even.
        device: where the angles are wanted.
    """
    positions = torch.arange(num_positions, dtype=torch.float32, device=device)
    return positions[:, None] * frequencies(head_dim, device)


def rotate_pairs(
    x: Float[Tensor, "row head position dim"], angles: Float[Tensor, "position pair"]
) -> Float[Tensor, "row head position dim"]:
    """Turn each pair of neighbouring coordinates by its angle, in float32.

    (a, b) → (a·cos − b·sin, a·sin + b·cos)          [arXiv:2104.09864, eq. 34]

    Returns:
        The turned vectors, in the dtype of ``x``.
    """
    first, second = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)
