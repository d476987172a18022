"""The straight path from data to noise. Time is the noise level: 1 = noise, 0 = data."""

from __future__ import annotations

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
