"""Noise levels: drawn for training, laid out for solving."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.errors import InputError
from resonate_audio.core.sampling import SolverSettings


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


def shifted(times: Float[Tensor, " time"], shift: float) -> Float[Tensor, " time"]:
    """Move noise levels towards the noise, both ends as they are.

    t' = s·t/(1 + (s − 1)·t)          [arXiv:2403.03206, eq. 23]

    Args:
        times: noise levels.
        shift: s; 1 gives the same levels, to the bit.
    """
    return times if shift == 1 else shift * times / (1 + (shift - 1) * times)


def grid_of(settings: SolverSettings) -> Float[Tensor, " time"]:
    """The noise levels of a whole solution, from 1 to 0."""
    return shifted(uniform_grid(settings.num_inference_steps), settings.time_shift)


def grid_from(strength: float, settings: SolverSettings) -> Float[Tensor, " time"]:
    """Noise levels from ``strength`` to 0, about as far apart as those of `grid_of`.

    The start of SDEdit [arXiv:2108.01073, alg. 1]: a sound that is noised to t₀ = strength and
    solved from there keeps what is coarser than the noise. 1 gives `grid_of`, to the bit; 0
    gives the single level 0, so that nothing is solved.

    Args:
        strength: t₀, in [0, 1].
        settings: steps that the whole way takes, and their shift.

    Raises:
        InputError: a strength outside [0, 1], or fewer than one step.
    """
    if not 0 <= strength <= 1:
        raise InputError(
            f"strength {strength}: expected a number from 0 (the same sound) to 1 (a free take)"
        )
    whole = grid_of(settings)
    if strength == 1:
        return whole
    if strength == 0:
        return whole[-1:]
    shift = settings.time_shift
    start = strength / (shift + (1 - shift) * strength)  # what `shifted` makes strength of
    num_steps = math.ceil(start * settings.num_inference_steps)
    return shifted(torch.linspace(start, 0.0, num_steps + 1), shift)
