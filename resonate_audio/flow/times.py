"""Noise levels: drawn for training, laid out for solving."""

from __future__ import annotations

import math

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


def grid_from(strength: float, num_steps: int) -> Float[Tensor, " time"]:
    """Noise levels from ``strength`` to 0, about as far apart as ``num_steps`` from 1 to 0.

    The start of SDEdit [arXiv:2108.01073, alg. 1]: a sound that is noised to t₀ = strength and
    solved from there keeps what is coarser than the noise. 1 gives `uniform_grid`, to the bit; 0
    gives the single level 0, so that nothing is solved.

    Args:
        strength: t₀, in [0, 1].
        num_steps: steps that the whole way takes.

    Raises:
        InputError: a strength outside [0, 1], or fewer than one step.
    """
    if not 0 <= strength <= 1:
        raise InputError(
            f"strength {strength}: expected a number from 0 (the same sound) to 1 (a free take)"
        )
    whole = uniform_grid(num_steps)
    if strength == 1:
        return whole
    if strength == 0:
        return whole[-1:]
    return torch.linspace(strength, 0.0, math.ceil(strength * num_steps) + 1)
