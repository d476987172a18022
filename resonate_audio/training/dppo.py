"""Flow-DPPO: a trust region measured by divergence instead of by the ratio."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig


class DPPOConfig(FrozenConfig):
    """Trust region and pull to the reference policy."""

    threshold: float = Field(1e-5, gt=0)
    """τ: divergence per dimension from which a row may not move further away."""
    kl: float = Field(0.0, ge=0)
    """Weight of ``gaussian_kl`` to the reference."""
    velocity_kl: float = Field(0.0, ge=0)
    """Weight of ``velocity_distance`` to the reference."""


@dataclass(frozen=True)
class DPPOLoss:
    """The objective of each row, and which rows it leaves alone."""

    rows: Float[Tensor, " row"]
    """To be minimised; has the gradient, none where masked."""
    ratio: Float[Tensor, " row"]
    """New over old likelihood, without gradient."""
    masked: Bool[Tensor, " row"]
    """Too far from the old policy, and about to go further."""


def dppo_loss(
    log_prob: Float[Tensor, " row"],
    old_log_prob: Float[Tensor, " row"],
    divergence: Float[Tensor, " row"],
    advantage: Float[Tensor, " row"],
    threshold: float,
) -> DPPOLoss:
    """Policy gradient that stops a row by its exact divergence from the old policy.

    L = −A·r, and 0 where D ≥ τ and the step leads away: r > 1 and A > 0, or r < 1 and A < 0
    [Flow-DPPO, arXiv:2606.11025]

    A ratio tells one sample's likelihood, D tells how far the whole step has moved.

    Args:
        log_prob: of the stored next states under the policy, mean over dimensions.
        old_log_prob: the same when the states were sampled.
        divergence: D, ``gaussian_kl`` of the policy's mean and the old one.
        advantage: of the take that each row is a step of.
        threshold: τ.
    """
    ratio = (log_prob - old_log_prob).exp()
    gain, detached = advantage.to(ratio.dtype), ratio.detach()
    leaving = (detached - 1) * gain > 0
    masked = (divergence.detach() >= threshold) & leaving
    return DPPOLoss(torch.where(masked, 0.0, -gain * ratio), detached, masked)
