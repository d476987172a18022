"""Data whose flow is known exactly: normal, with any covariance between frames."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from resonate_audio.flow.path import Velocity


def gaussian_velocity(mean: float | Tensor, covariance: Tensor) -> Velocity:
    """Velocity when data ~ N(mean, C) over frames, channels independent.

    E[noise − data | z_t] = (t·I − (1−t)·C)·((1−t)²·C + t²·I)⁻¹·(z_t − (1−t)·mean) − mean
    """
    values, vectors = torch.linalg.eigh(covariance)
    mean = torch.as_tensor(mean, dtype=covariance.dtype)
    centre = mean[:, None] if mean.dim() else mean

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        level = t[0]
        gains = (level - (1 - level) * values) / ((1 - level) ** 2 * values + level**2)
        slope = vectors @ torch.diag(gains) @ vectors.T
        return slope @ (z - (1 - level) * centre) - centre

    return velocity


def autoregressive(num_frames: int, correlation: float) -> Tensor:
    """Covariance ρ^|i−j| of a first-order autoregression of unit variance, float64."""
    places = torch.arange(num_frames, dtype=torch.float64)
    return correlation ** (places[:, None] - places).abs()


def drawing(*shape: int, seed: int = 0) -> Callable[[], Tensor]:
    """Standard normals of a shape, others at every call."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(*shape, generator=generator, dtype=torch.float64)
