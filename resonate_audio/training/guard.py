"""GRPO-Guard: ratios that are centred at every step, gradients of one size at every step."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.training.grpo import Surrogate, clipped_surrogate


class GuardConfig(FrozenConfig):
    """Trust region and pull to the reference policy."""

    clip: float = Field(2e-6, gt=0, lt=1)
    """ε around 1 for the centred ratio, which is smaller than GRPO's by the factor s."""
    kl: float = Field(0.0, ge=0)
    """Weight of ``gaussian_kl`` to the reference."""
    velocity_kl: float = Field(0.0, ge=0)
    """Weight of ``velocity_distance`` to the reference."""


def centred_log_ratio(
    mean: Float[Tensor, "row frame channel"],
    old_mean: Float[Tensor, "row frame channel"],
    next_state: Float[Tensor, "row frame channel"],
    std: Float[Tensor, " row"],
) -> Float[Tensor, " row"]:
    """Log-ratio of a step without its negative bias, times the step's noise.

    [Δlog p + mean(Δμ²)/2s²]·s = mean(Δμ·z),    z = (x' − μ_old)/s

    The right-hand side is computed: z is standard normal, so its mean over samples is 0
    whatever the step, and it needs no density.

    Args:
        mean: μ of the policy, with the gradient.
        old_mean: μ when the step was sampled.
        next_state: x', the stored sample.
        std: s, above 0.
    """
    noise = (next_state - old_mean) / std[:, None, None]
    return ((mean - old_mean) * noise).mean(dim=(1, 2))


def guard_loss(
    mean: Float[Tensor, "row frame channel"],
    old_mean: Float[Tensor, "row frame channel"],
    next_state: Float[Tensor, "row frame channel"],
    std: Float[Tensor, " row"],
    jacobian: Float[Tensor, " row"],
    advantage: Float[Tensor, " row"],
    clip: float,
) -> Surrogate:
    """GRPO's clipped objective on the centred ratio, over the step's Jacobian.

    L = max(−A·r, −A·clip(r, 1−ε, 1+ε)) / J,    r = exp mean(Δμ·z),    J = |∂μ/∂v|
    [GRPO-Guard, arXiv:2510.22319]

    At r = 1 the gradient by the velocity has the size |A·z|/dimensions at every step.

    Differs from the published code: the bias is taken off each row, not the batch's mean off
    all, and the divisor is the exact J instead of the step length.

    Args:
        mean: μ of the policy, with the gradient.
        old_mean: μ when the step was sampled.
        next_state: the stored sample.
        std: s of the step, above 0.
        jacobian: J of the step, from the schedule.
        advantage: of the take that each row is a step of.
        clip: ε.
    """
    log_ratio = centred_log_ratio(mean, old_mean, next_state, std)
    surrogate = clipped_surrogate(log_ratio, advantage, clip)
    return replace(surrogate, rows=surrogate.rows / jacobian)
