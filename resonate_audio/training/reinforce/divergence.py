"""How far a policy is from another one, per row: what every algorithm here measures."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST_SQUARE = 1e-12
"""Mean square below which a velocity counts as this large."""


def row_mean_square(difference: Float[Tensor, "row frame channel"]) -> Float[Tensor, " row"]:
    """Mean square over frames and channels, in float32 or wider."""
    wide = difference.to(torch.promote_types(difference.dtype, torch.float32))
    return wide.square().mean(dim=(1, 2))


def gaussian_kl(
    mean: Float[Tensor, "row frame channel"],
    other_mean: Float[Tensor, "row frame channel"],
    std: Float[Tensor, " row"],
) -> Float[Tensor, " row"]:
    """Exact divergence of two steps of one schedule, per dimension.

    KL(N(μ, s²) ‖ N(μ', s²)) / dimensions = mean (μ − μ')² / 2s²

    Args:
        mean: μ of this policy, with the gradient.
        other_mean: μ' of the other, at the same state.
        std: s, the step's noise; where it is 0 there is no density and the result is 0.
    """
    safe = torch.where(std > 0, std, 1.0)
    divergence = row_mean_square(mean - other_mean) / (2 * safe.square())
    return torch.where(std > 0, divergence, 0.0)


def velocity_distance(
    velocity: Float[Tensor, "row frame channel"], other: Float[Tensor, "row frame channel"]
) -> Float[Tensor, " row"]:
    """Mean squared distance of two velocities: a divergence that no schedule scales."""
    return row_mean_square(velocity - other)


def norm_ratio(
    velocity: Float[Tensor, "row frame channel"], other: Float[Tensor, "row frame channel"]
) -> Float[Tensor, " row"]:
    """How many times as large a velocity is as another: ‖v‖ / ‖v'‖, over frames and channels.

    Two that are all zeros, as of a network that begins with zeros, are equally large.

    Args:
        velocity: v, with the gradient.
        other: v', of another policy at the same state.
    """
    here = row_mean_square(velocity).clamp(min=SMALLEST_SQUARE)
    return (here / row_mean_square(other).clamp(min=SMALLEST_SQUARE)).sqrt()
