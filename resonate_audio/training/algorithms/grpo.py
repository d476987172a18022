"""GRPO for flows: raise the likelihood of steps that led to better takes, inside a trust region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.training.reinforce.experience import Experience, Metrics
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.replay import Tally, check_clip, pull_to_reference, replays
from resonate_audio.training.reinforce.trainer import Update


class GRPOConfig(FrozenConfig):
    """Trust region and pull to the reference policy."""

    kind: Literal["grpo"] = "grpo"
    clip: float = Field(1e-4, gt=0, lt=1)
    """ε: ratios beyond 1 ± ε no longer pull. The log-density is a mean over dimensions, so this
    is ε times their number in nats: ±1.7 for 17,200."""
    kl: float = Field(0.04, ge=0)
    """Weight of ``gaussian_kl`` to the reference; see ``exact_kl_weight`` for published ones."""
    velocity_kl: float = Field(0.0, ge=0)
    """Weight of ``velocity_distance`` to the reference."""


@dataclass(frozen=True)
class Surrogate:
    """The clipped objective of each row, and where its ratio lies."""

    rows: Float[Tensor, " row"]
    """To be minimised; has the gradient."""
    ratio: Float[Tensor, " row"]
    """New over old likelihood, without gradient."""
    above: Bool[Tensor, " row"]
    """The ratio is above the clipping range."""
    below: Bool[Tensor, " row"]
    """The ratio is below the clipping range."""


def grpo_loss(
    log_prob: Float[Tensor, " row"],
    old_log_prob: Float[Tensor, " row"],
    advantage: Float[Tensor, " row"],
    clip: float,
) -> Surrogate:
    """Clipped policy gradient of single steps.

    L = max(−A·r, −A·clip(r, 1−ε, 1+ε)),    r = exp(log p − log p_old)
    [PPO, arXiv:1707.06347, eq. 7; for flows Flow-GRPO, arXiv:2505.05470]

    At r = 1 its gradient is −A ∇log p. Where moving further the same way would pay off no more
    (A > 0 and r > 1 + ε, or A < 0 and r < 1 − ε) there is none.

    Args:
        log_prob: of the stored next states under the policy, mean over dimensions.
        old_log_prob: the same when the states were sampled.
        advantage: of the take that each row is a step of.
        clip: ε.
    """
    return clipped_surrogate(log_prob - old_log_prob, advantage, clip)


def clipped_surrogate(
    log_ratio: Float[Tensor, " row"], advantage: Float[Tensor, " row"], clip: float
) -> Surrogate:
    """The objective of ``grpo_loss`` for any logarithm of a ratio."""
    ratio = log_ratio.exp()
    gain = advantage.to(ratio.dtype)
    rows = torch.maximum(-gain * ratio, -gain * ratio.clamp(1 - clip, 1 + clip))
    detached = ratio.detach()
    return Surrogate(rows, detached, above=detached - 1 > clip, below=1 - detached > clip)


def exact_kl_weight(published: float, step_length: float) -> float:
    """Weight for ``gaussian_kl`` that equals a published β for steps of this length.

    Flow-GRPO and Resonate divide by 2σ_t² where the step's variance is s² = σ_t²·(σ − σ'). Their
    β·mean(Δμ²)/2σ_t² is thus β·(σ − σ') times the divergence: 0.04 with ten equal steps is 0.004
    here. (Their CPS sampler has no step length in s, so its β is the same in both.)

    Args:
        published: β of the published recipe.
        step_length: σ − σ', for N equal steps 1/N.
    """
    return published * step_length


def grpo_step(
    policy: Policy,
    experience: Experience,
    update: Update,
    config: GRPOConfig,
    rows_per_batch: int,
) -> Metrics:
    """Gradients of one update over every trained step of its takes.

    Raises:
        TrainingError: the clip range is within what rounding does to log p.
    """
    tally, schedule = Tally(update.ranks), experience.rollout.schedule
    for replay in replays(policy, experience, update, rows_per_batch):
        if update.first:
            check_clip(config.clip, replay.mismatch.item(), "algorithm.clip")
            tally.add_maximum(ratio__noise_floor=replay.mismatch)
        surrogate = grpo_loss(
            replay.taken.log_prob, replay.old_log_prob, replay.advantage, config.clip
        )
        pull = pull_to_reference(policy, replay, schedule, config.kl, config.velocity_kl)
        loss = surrogate.rows.mean() + pull.loss
        (replay.share * loss).backward()  # type: ignore[no-untyped-call]
        tally.add(replay.share, loss=loss, **pull.measured)
        tally.add_surrogate(replay.share, surrogate.ratio, surrogate.above, surrogate.below)
    return tally.result()
