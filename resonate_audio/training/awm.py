"""Advantage-weighted matching: a policy gradient on the pre-training loss."""

from __future__ import annotations

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.training.divergence import row_mean_square
from resonate_audio.training.grpo import Surrogate, clipped_surrogate


class AWMConfig(FrozenConfig):
    """Trust region and pull to the reference policy."""

    clip: float = Field(1.0, gt=0, le=1)
    """ε around 1; wide, as pseudo-likelihoods move little."""
    velocity_kl: float = Field(0.003, ge=0)
    """Weight of ``velocity_distance`` to the reference."""


def awm_loss(
    velocity: Float[Tensor, "row frame channel"],
    old_velocity: Float[Tensor, "row frame channel"],
    target: Float[Tensor, "row frame channel"],
    advantage: Float[Tensor, " row"],
    clip: float,
    weight: Float[Tensor, " row"] | float = 1.0,
) -> Surrogate:
    """Clipped policy gradient whose log-likelihood is the negative flow-matching loss.

    ℓ = −w(t)·mean‖v − (noise − data)‖²,    r = exp(ℓ − ℓ_old)
    L = max(−A·r, −A·clip(r, 1−ε, 1+ε))          [AWM, arXiv:2509.25050]

    At r = 1 the gradient is A times that of the flow-matching loss. Takes may come from any
    sampler; they are noised afresh.

    Args:
        velocity: of the policy at the noised take, with the gradient.
        old_velocity: of the policy that made the takes, at the same point.
        target: noise − data of the noised take.
        advantage: of the take.
        clip: ε.
        weight: w(t) of each row.
    """
    old_error = row_mean_square(old_velocity.detach() - target)
    log_ratio = weight * (old_error - row_mean_square(velocity - target))
    return clipped_surrogate(log_ratio, advantage, clip)
