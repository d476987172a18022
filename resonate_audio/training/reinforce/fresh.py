"""Takes noised afresh: what regression losses are taken over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.path import noised, velocity_target
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.rollout import Rollout
from resonate_audio.training.reinforce.trainer import Update


@dataclass(frozen=True)
class NoisedTakes:
    """Some takes at noise levels of their own."""

    row: Int[Tensor, " item"]
    state: Float[Tensor, "item frame channel"]
    levels: Float[Tensor, " item"]
    target: Float[Tensor, "item frame channel"]
    """What the policy's velocity is to be there, if it is to give the take: noise minus data, or
    the mean velocity that goes with it."""
    features: TextFeatures
    share: float
    """Of all items of the update in all processes; the shares add up to 1."""


def noised_takes(
    policy: Policy, rollout: Rollout, update: Update, times_per_take: int, rows_per_batch: int
) -> Iterator[NoisedTakes]:
    """Noise every take of an update ``times_per_take`` times, at levels that the policy draws."""
    total = len(update.rows) * times_per_take
    batches = torch.split(update.rows, rows_per_batch) * times_per_take
    for number, batch in enumerate(batches):
        update.on_pass(number + 1 == len(batches))
        own, share = update.own_part(len(batch))
        data = rollout.latents[batch.to(rollout.latents.device)]
        levels, noise = (drawn[own] for drawn in fresh_noise(policy, data, update.generator))
        rows, data = batch[own], data[own]
        state, features = noised(data, noise, levels), rollout.row_features(rows)
        velocity = velocity_target(data, noise)
        yield NoisedTakes(
            row=rows,
            state=state,
            levels=levels,
            target=policy.regressed_target(features, state, levels, velocity),
            features=features,
            share=share * len(batch) / total,
        )


def new_and_old(
    policy: Policy, part: NoisedTakes, is_same: bool
) -> tuple[Float[Tensor, "item frame channel"], Float[Tensor, "item frame channel"]]:
    """Velocities of the policy, with its gradient, and of the one that made the takes, without.

    ``is_same``: nothing was learnt since, so that it need not be asked twice.
    """
    scale, old = policy.regressed_guidance, None
    if not is_same:
        old = policy.bind_remembered(part.features, scale)(part.state, part.levels)
    velocity = policy.bind(part.features, scale)(part.state, part.levels)
    return velocity, velocity.detach() if old is None else old


def fresh_noise(
    policy: Policy, data: Float[Tensor, "row frame channel"], generator: torch.Generator
) -> tuple[Float[Tensor, " row"], Float[Tensor, "row frame channel"]]:
    """Noise levels of the policy's losses, and noise, one of each a row."""
    levels = policy.regressed_levels(generator, len(data))
    return levels, torch.randn(data.shape, generator=generator, device=data.device)
