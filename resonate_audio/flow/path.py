"""The straight path from data to noise. Time is the noise level: 1 = noise, 0 = data."""

from __future__ import annotations

import math
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Velocity = Callable[[Float[Tensor, "row ..."], Float[Tensor, " row"]], Float[Tensor, "row ..."]]
"""v(z, t): all that solvers and objectives know of a model."""


def noised(
    data: Float[Tensor, "row frame channel"],
    noise: Float[Tensor, "row frame channel"],
    t: Float[Tensor, " row"],
) -> Float[Tensor, "row frame channel"]:
    """Mix data and noise: z_t = (1 − t)·data + t·noise          [arXiv:2209.03003, eq. 1].

    Differs from the paper: time runs the other way, so t is the noise level.
    """
    level = t[:, None, None]
    return (1 - level) * data + level * noise


def velocity_target(
    data: Float[Tensor, "row frame channel"], noise: Float[Tensor, "row frame channel"]
) -> Float[Tensor, "row frame channel"]:
    """dz_t/dt = noise − data, the same all along the path."""
    return noise - data


def renoised(
    z: Float[Tensor, "row frame channel"],
    noise: Float[Tensor, "row frame channel"],
    level: float,
    higher_level: float,
) -> Float[Tensor, "row frame channel"]:
    """Carry a state back to a higher noise level by adding fresh noise.

    z_t = a·z_s + √(t² − a²s²)·noise, a = (1 − t)/(1 − s), s ≤ t
    [arXiv:2201.09865, eq. 1, for straight paths]

    The result is distributed as the path at t when ``z`` is distributed as the path at s.

    Args:
        z: state at ``level``.
        noise: standard normal, independent of ``z``.
        level: s, in [0, 1).
        higher_level: t, in [s, 1].
    """
    assert 0 <= level <= higher_level <= 1 != level, (level, higher_level)
    kept = (1 - higher_level) / (1 - level)
    added = math.sqrt(max(0.0, higher_level**2 - (kept * level) ** 2))
    return kept * z + added * noise
