"""GRPO-Guard: ratios that are centred at every step, gradients of one size at every step."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.training.algorithms.grpo import Surrogate, clipped_surrogate
from resonate_audio.training.reinforce.experience import Experience, Metrics
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.replay import Tally, check_clip, pull_to_reference, replays
from resonate_audio.training.reinforce.trainer import Update


class GuardConfig(FrozenConfig):
    """Trust region and pull to the reference policy."""

    kind: Literal["guard"] = "guard"
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


def guard_step(
    policy: Policy,
    experience: Experience,
    update: Update,
    config: GuardConfig,
    rows_per_batch: int,
) -> Metrics:
    """Gradients of one update over every trained step of its takes.

    Raises:
        TrainingError: the clip range is within what rounding does to the log-ratio.
    """
    tally, schedule = Tally(update.ranks), experience.rollout.schedule
    for replay in replays(policy, experience, update, rows_per_batch):
        items, taken = replay.items, replay.taken
        if update.first:
            moved = centred_log_ratio(taken.mean.detach(), items.mean, items.next_state, taken.std)
            check_clip(config.clip, moved.abs().max().item(), "algorithm.clip")
            tally.add_maximum(ratio__noise_floor=moved.abs().max())
        surrogate = guard_loss(
            taken.mean,
            replay.old_mean,
            items.next_state,
            taken.std,
            schedule.jacobian[items.step],
            replay.advantage,
            config.clip,
        )
        pull = pull_to_reference(policy, replay, schedule, config.kl, config.velocity_kl)
        loss = surrogate.rows.mean() + pull.loss
        (replay.share * loss).backward()  # type: ignore[no-untyped-call]
        tally.add(replay.share, loss=loss, **pull.measured)
        tally.add_surrogate(replay.share, surrogate.ratio, surrogate.above, surrogate.below)
    return tally.result()
