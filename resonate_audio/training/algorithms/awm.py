"""Advantage-weighted matching: a policy gradient on the pre-training loss."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.training.algorithms.grpo import Surrogate, clipped_surrogate
from resonate_audio.training.reinforce.divergence import row_mean_square
from resonate_audio.training.reinforce.experience import Experience, Metrics
from resonate_audio.training.reinforce.fresh import new_and_old, noised_takes
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.replay import Tally, pull_velocity
from resonate_audio.training.reinforce.trainer import Update


class AWMConfig(FrozenConfig):
    """Trust region and pull to the reference policy."""

    kind: Literal["awm"] = "awm"
    clip: float = Field(1.0, gt=0, le=1)
    """ε around 1; wide, as pseudo-likelihoods move little."""
    velocity_kl: float = Field(0.003, ge=0)
    """Weight of ``velocity_distance`` to the reference."""
    norm_guard: float = Field(0.0, ge=0)
    """Weight of the hinge on velocities larger than the reference's; see ``pull_from``."""
    times_per_take: int = Field(2, ge=1, le=1_000)
    """Noise levels at which each take is learnt from in one update."""


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


def awm_step(
    policy: Policy,
    experience: Experience,
    update: Update,
    config: AWMConfig,
    rows_per_batch: int,
) -> Metrics:
    """Gradients of one update over its takes, noised afresh."""
    tally = Tally(update.ranks)
    parts = noised_takes(policy, experience.rollout, update, config.times_per_take, rows_per_batch)
    for part in parts:
        velocity, before = new_and_old(policy, part, update.first)
        advantage = experience.advantages.values[part.row].to(velocity.device, torch.float32)
        surrogate = awm_loss(velocity, before, part.target, advantage, config.clip)
        pull = pull_velocity(policy, part, velocity, config.velocity_kl, config.norm_guard)
        loss = surrogate.rows.mean() + pull.loss
        (part.share * loss).backward()  # type: ignore[no-untyped-call]
        tally.add(part.share, loss=loss, **pull.measured)
        tally.add_surrogate(part.share, surrogate.ratio, surrogate.above, surrogate.below)
    return tally.result()
