"""Supervised learning from one's own takes: weigh them by reward, or keep the best."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import ConfigError
from resonate_audio.training.reinforce.advantage import group_rows
from resonate_audio.training.reinforce.divergence import row_mean_square
from resonate_audio.training.reinforce.experience import Experience, Metrics
from resonate_audio.training.reinforce.fresh import noised_takes
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.replay import Tally
from resonate_audio.training.reinforce.trainer import Update


class RWRConfig(FrozenConfig):
    """How sharply rewards become weights."""

    kind: Literal["rwr"] = "rwr"
    temperature: float = Field(0.1, gt=0)
    """Reward difference that changes a weight by the factor e; in units of the reward."""
    times_per_take: int = Field(2, ge=1, le=1_000)
    """Noise levels at which each take is learnt from in one update."""


class RAFTConfig(FrozenConfig):
    """How many takes are learnt from."""

    kind: Literal["raft"] = "raft"
    keep: int = Field(1, ge=1, le=10_000)
    """Best takes of each prompt."""
    times_per_take: int = Field(2, ge=1, le=1_000)
    """Noise levels at which each take is learnt from in one update."""


def rwr_weights(
    reward: Float[Tensor, " row"], group: Int[Tensor, " row"], temperature: float
) -> Float64[Tensor, " row"]:
    """Weights of the flow-matching loss by reward, relative to the prompt's other takes.

    w = G·softmax_G(r/τ), so their mean is 1 within each prompt and equal rewards give plain
    training          [reward-weighted regression, Peters and Schaal 2007; for diffusion
    arXiv:2302.12192]

    Args:
        reward: one number a row.
        group: prompt id of each row, in any order.
        temperature: τ, in units of the reward.

    Raises:
        ShapeError: another number of ids than of rewards, or a prompt with a single take.
    """
    values = reward.double().cpu()
    weights = torch.zeros_like(values)
    for rows in group_rows(group, len(values)):
        weights[rows] = len(rows) * torch.softmax(values[rows] / temperature, dim=0)
    return weights


def raft_mask(
    reward: Float[Tensor, " row"], group: Int[Tensor, " row"], keep: int
) -> Bool[Tensor, " row"]:
    """True for the ``keep`` best takes of each prompt; of equal takes the first are taken.

    [RAFT, arXiv:2304.06767]

    Raises:
        ShapeError: another number of ids than of rewards, or a prompt with a single take.
        ConfigError: a prompt has fewer takes than are to be kept.
    """
    values = reward.double().cpu()
    mask = torch.zeros(len(values), dtype=torch.bool)
    for rows in group_rows(group, len(values)):
        if keep > len(rows):
            raise ConfigError(f"keep {keep} of {len(rows)} takes a prompt: keep fewer or make more")
        order = values[rows].argsort(descending=True, stable=True)
        mask[rows[order[:keep]]] = True
    return mask


def best_of_n_step(
    policy: Policy,
    experience: Experience,
    update: Update,
    config: RWRConfig | RAFTConfig,
    rows_per_batch: int,
) -> Metrics:
    """Gradients of one update: flow matching on its takes, weighted by reward."""
    tally, rollout = Tally(update.ranks), experience.rollout
    weights = torch.zeros(len(rollout.latents))
    reward, groups = experience.rewards.total[update.rows], rollout.groups[update.rows]
    if isinstance(config, RWRConfig):
        weights[update.rows] = rwr_weights(reward, groups, config.temperature).float()
    else:
        weights[update.rows] = raft_mask(reward, groups, config.keep).float()
        update = replace(update, rows=update.rows[weights[update.rows] > 0])
    for part in noised_takes(policy, rollout, update, config.times_per_take, rows_per_batch):
        velocity = policy.bind(part.features, policy.regressed_guidance)(part.state, part.levels)
        errors = row_mean_square(velocity - part.target)
        loss = (weights[part.row].to(errors) * errors).mean()
        (part.share * loss).backward()  # type: ignore[no-untyped-call]
        tally.add(part.share, loss=loss, error=errors.mean())
    return tally.result()
