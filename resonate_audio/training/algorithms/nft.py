"""DiffusionNFT: learn from good and bad takes by two regressions, without any likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.training.reinforce.divergence import row_mean_square
from resonate_audio.training.reinforce.experience import Experience, Metrics
from resonate_audio.training.reinforce.fresh import new_and_old, noised_takes
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.replay import Tally, pull_velocity
from resonate_audio.training.reinforce.trainer import Update

SMALLEST_ERROR = 1e-5
"""Smallest divisor of a regression's error."""


class NFTConfig(FrozenConfig):
    """How far good and bad are apart, and the pull to the reference policy."""

    kind: Literal["nft"] = "nft"
    mix: float = Field(1.0, gt=0)
    """b: how far the implicit good and bad policies are from the old one; 0.1 learns faster and
    less steadily."""
    scale: float = Field(5.0, gt=0)
    """Z: advantage at which a take counts as wholly good."""
    velocity_kl: float = Field(1e-4, ge=0)
    """Weight of ``velocity_distance`` to the reference."""
    norm_guard: float = Field(0.0, ge=0)
    """Weight of the hinge on velocities larger than the reference's; see ``pull_from``."""
    old_decay: float = Field(0.0, ge=0, lt=1)
    """How much of the older weights the old policy keeps at each rollout; 0: it is the policy."""
    times_per_take: int = Field(2, ge=1, le=1_000)
    """Noise levels at which each take is learnt from in one update."""


@dataclass(frozen=True)
class NFTLoss:
    """The objective of each row and its two regressions."""

    rows: Float[Tensor, " row"]
    """To be minimised; has the gradient."""
    positive: Float[Tensor, " row"]
    """Normalised error of the good policy, without gradient."""
    negative: Float[Tensor, " row"]
    """Normalised error of the bad policy, without gradient."""


def optimality(advantage: Float[Tensor, " row"], scale: float) -> Float[Tensor, " row"]:
    """How likely a take is a good one: r = ½ + ½·clip(A/Z, −1, 1), in [0, 1]."""
    return 0.5 + 0.5 * (advantage / scale).clamp(-1, 1)


def nft_loss(
    velocity: Float[Tensor, "row frame channel"],
    old_velocity: Float[Tensor, "row frame channel"],
    target: Float[Tensor, "row frame channel"],
    t: Float[Tensor, " row"],
    goodness: Float[Tensor, " row"],
    mix: float,
) -> NFTLoss:
    """Regress an implicit good policy on good takes and an implicit bad one on bad takes.

    v⁺ = (1−b)·v_old + b·v,    v⁻ = (1+b)·v_old − b·v
    L = r·‖x̂0⁺ − x0‖²/w⁺ + (1−r)·‖x̂0⁻ − x0‖²/w⁻,    w = mean |x̂0 − x0|, no gradient
    [DiffusionNFT, arXiv:2509.16117]

    On the straight path x̂0 − x0 = t·(u − v) for the true velocity u, so no state is needed.
    With v = v_old both errors are equal, and a take of r = ½ has no gradient.

    Args:
        velocity: v of the policy at the noised take, with the gradient.
        old_velocity: v_old of the policy that made the takes.
        target: u = noise − data of the noised take.
        t: noise levels.
        goodness: r, from ``optimality``.
        mix: b.
    """
    old = old_velocity.detach()
    positive = _normalised_error((1 - mix) * old + mix * velocity - target, t)
    negative = _normalised_error((1 + mix) * old - mix * velocity - target, t)
    good = goodness.to(positive.dtype)
    rows = good * positive + (1 - good) * negative
    return NFTLoss(rows, positive.detach(), negative.detach())


def _normalised_error(
    error: Float[Tensor, "row frame channel"], t: Float[Tensor, " row"]
) -> Float[Tensor, " row"]:
    """Mean square of the error of the data over its mean size."""
    data_error = t[:, None, None] * error
    size = data_error.detach().abs().mean(dim=(1, 2)).clamp(min=SMALLEST_ERROR)
    return row_mean_square(data_error) / size


def nft_step(
    policy: Policy,
    experience: Experience,
    update: Update,
    config: NFTConfig,
    rows_per_batch: int,
) -> Metrics:
    """Gradients of one update over its takes, noised afresh; the old policy is the remembered."""
    tally = Tally(update.ranks)
    parts = noised_takes(policy, experience.rollout, update, config.times_per_take, rows_per_batch)
    is_same = update.first and config.old_decay == 0
    for part in parts:
        velocity, old = new_and_old(policy, part, is_same)
        advantage = experience.advantages.values[part.row].to(velocity.device, torch.float32)
        goodness = optimality(advantage, config.scale)
        learnt = nft_loss(velocity, old, part.target, part.levels, goodness, config.mix)
        pull = pull_velocity(policy, part, velocity, config.velocity_kl, config.norm_guard)
        loss = learnt.rows.mean() + pull.loss
        (part.share * loss).backward()  # type: ignore[no-untyped-call]
        tally.add(part.share, loss=loss, goodness=goodness.mean(), **pull.measured)
        tally.add(part.share, positive=learnt.positive.mean(), negative=learnt.negative.mean())
    return tally.result()
