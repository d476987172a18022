"""How far a policy is from another one, per row: what every algorithm here measures."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


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
