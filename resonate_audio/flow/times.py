"""Noise levels: drawn for training, laid out for solving."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.errors import InputError


def logit_normal_times(
    normals: Float[Tensor, " row"], mean: float = 0.0, std: float = 1.0
) -> Float[Tensor, " row"]:
    """Turn standard normals into noise levels, most of them near the middle.

    t = sigmoid(mean + std·n), n ~ N(0, 1)          [arXiv:2403.03206, sec. 3.1]
    """
    return torch.sigmoid(mean + std * normals)


def uniform_grid(num_steps: int) -> Float[Tensor, " time"]:
    """Equally spaced noise levels from 1 to 0: ``num_steps`` + 1 of them.

    Raises:
        InputError: fewer than one step.
    """
    if num_steps < 1:
        raise InputError(f"{num_steps} inference steps: expected 1 or more")
    return torch.linspace(1.0, 0.0, num_steps + 1)
