"""Flow-DPPO: a trust region measured by divergence instead of by the ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.training.reinforce.divergence import gaussian_kl
from resonate_audio.training.reinforce.experience import Experience, Metrics
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.replay import Tally, pull_to_reference, replays
from resonate_audio.training.reinforce.trainer import Update


class DPPOConfig(FrozenConfig):
    """Trust region and pull to the reference policy."""

    kind: Literal["dppo"] = "dppo"
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


def dppo_step(
    policy: Policy,
    experience: Experience,
    update: Update,
    config: DPPOConfig,
    rows_per_batch: int,
) -> Metrics:
    """Gradients of one update over every trained step of its takes."""
    tally, schedule = Tally(update.ranks), experience.rollout.schedule
    for replay in replays(policy, experience, update, rows_per_batch):
        taken = replay.taken
        if update.first:
            tally.add_maximum(ratio__noise_floor=replay.mismatch)
        divergence = gaussian_kl(taken.mean, replay.old_mean, taken.std)
        masked = dppo_loss(
            taken.log_prob, replay.old_log_prob, divergence, replay.advantage, config.threshold
        )
        pull = pull_to_reference(policy, replay, schedule, config.kl, config.velocity_kl)
        loss = masked.rows.mean() + pull.loss
        (replay.share * loss).backward()  # type: ignore[no-untyped-call]
        tally.add(replay.share, loss=loss, **pull.measured)
        tally.add(
            replay.share, kl_to_rollout=divergence.mean(), masked=masked.masked.float().mean()
        )
        tally.add(replay.share, ratio__mean=masked.ratio.mean())
        tally.add_maximum(ratio__max_abs_dev=(masked.ratio - 1).abs().max())
    return tally.result()
