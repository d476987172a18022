"""Preference optimisation: the better take of a prompt should fit better than the worse one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.path import noised, velocity_target
from resonate_audio.training.reinforce.advantage import group_rows, reward_spread
from resonate_audio.training.reinforce.divergence import row_mean_square
from resonate_audio.training.reinforce.experience import Experience, Metrics
from resonate_audio.training.reinforce.fresh import fresh_noise
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.replay import Pull, Tally, pull_from
from resonate_audio.training.reinforce.trainer import Update


class DPOConfig(FrozenConfig):
    """How firmly preferences are followed."""

    kind: Literal["dpo"] = "dpo"
    beta: float = Field(100.0, gt=0)
    """β for errors that are means over dimensions; one made for sums is to be multiplied by the
    number of dimensions."""
    online: bool = False
    """Compare takes of the policy as it is; otherwise those of the model before training."""
    norm_guard: float = Field(0.0, ge=0)
    """Weight of the hinge on velocities larger than the reference's; see ``pull_from``."""
    times_per_take: int = Field(2, ge=1, le=1_000)
    """Noise levels at which each take is learnt from in one update."""


@dataclass(frozen=True)
class Pairs:
    """Rows to compare, both of one prompt."""

    winners: Int[Tensor, " pair"]
    losers: Int[Tensor, " pair"]
    num_ties: int
    """Prompts without a pair, because all their takes have equal rewards."""


def make_pairs(reward: Float[Tensor, " row"], group: Int[Tensor, " row"]) -> Pairs:
    """Pair the best take of each prompt with the worst take of the *same* prompt.

    Of equal takes the first counts. A prompt whose takes all have equal rewards gives no pair.

    Args:
        reward: one number a row.
        group: prompt id of each row, in any order.

    Raises:
        ShapeError: another number of ids than of rewards, or a prompt with a single take.
    """
    values = reward.double().cpu()
    groups = group_rows(group, len(values))
    best = torch.stack([rows[values[rows].argmax()] for rows in groups])
    worst = torch.stack([rows[values[rows].argmin()] for rows in groups])
    differ = torch.tensor([reward_spread(values[rows]) > 0 for rows in groups])
    return Pairs(best[differ], worst[differ], int((~differ).sum()))


@dataclass(frozen=True)
class DPOLoss:
    """The objective of each pair."""

    pairs: Float[Tensor, " pair"]
    """To be minimised; has the gradient."""
    margin: Float[Tensor, " pair"]
    """Logit that the winner is preferred, without gradient; 0 for the reference itself."""
    correct: Bool[Tensor, " pair"]
    """The winner has gained more on the reference than the loser."""


def dpo_loss(
    winner_error: Float[Tensor, " pair"],
    loser_error: Float[Tensor, " pair"],
    reference_winner_error: Float[Tensor, " pair"],
    reference_loser_error: Float[Tensor, " pair"],
    beta: float,
) -> DPOLoss:
    """Logistic loss of which take the policy came closer to, compared with the reference.

    L = −log sigmoid(−½β·[(e_w − e_w,ref) − (e_l − e_l,ref)])
    [Diffusion-DPO, arXiv:2311.12908, eq. 14, for velocities]

    Differs from the paper: errors are means over dimensions, and β has no factor T.

    Args:
        winner_error: mean squared velocity error of the policy at the noised winner.
        loser_error: at the loser, with the same noise and noise level.
        reference_winner_error: of the reference at the winner.
        reference_loser_error: of the reference at the loser.
        beta: β.
    """
    gained = (winner_error - reference_winner_error) - (loser_error - reference_loser_error)
    margin = -0.5 * beta * gained
    return DPOLoss(-F.logsigmoid(margin), margin.detach(), margin.detach() > 0)


@dataclass(frozen=True)
class PairedLatents:
    """What is compared: two normalised latents a pair, and the features of its text."""

    winners: Float[Tensor, "pair frame channel"]
    losers: Float[Tensor, "pair frame channel"]
    features: TextFeatures
    """One row a pair."""

    def part(self, pairs: Int[Tensor, " pair"]) -> PairedLatents:
        """Some of the pairs."""
        pairs = pairs.to(self.winners.device)
        return PairedLatents(self.winners[pairs], self.losers[pairs], self.features.rows(pairs))


@dataclass(frozen=True)
class Compared:
    """What some pairs say of the policy."""

    preference: DPOLoss
    pull: Pull
    """Of the reference, both takes of a pair counted."""

    @property
    def loss(self) -> Float[Tensor, ""]:
        """Mean over pairs, to be minimised."""
        return self.preference.pairs.mean() + self.pull.loss


def compare_pairs(
    policy: Policy,
    pairs: PairedLatents,
    levels: Float[Tensor, " pair"],
    noise: Float[Tensor, "pair frame channel"],
    config: DPOConfig,
) -> Compared:
    """Compare pairs at given noise levels; both of a pair get one noise."""
    levels, noise = levels.repeat(2), noise.repeat(2, 1, 1)
    data = torch.cat([pairs.winners, pairs.losers])
    texts = pairs.features
    features = TextFeatures(texts.tokens.repeat(2, 1, 1), texts.pooled.repeat(2, 1))
    state, straight = noised(data, noise, levels), velocity_target(data, noise)
    target = policy.regressed_target(features, state, levels, straight)
    reference = policy.bind_reference(features, policy.regressed_guidance)(state, levels)
    velocity = policy.bind(features, policy.regressed_guidance)(state, levels)
    winner, loser = row_mean_square(velocity - target).chunk(2)
    winner_before, loser_before = row_mean_square(reference - target).chunk(2)
    preference = dpo_loss(winner, loser, winner_before, loser_before, config.beta)
    return Compared(preference, pull_from(velocity, reference, 0.0, config.norm_guard))


def dpo_step(
    policy: Policy,
    experience: Experience,
    update: Update,
    config: DPOConfig,
    rows_per_batch: int,
) -> Metrics:
    """Gradients of one update over the pairs of its prompts."""
    rollout, latents = experience.rollout, experience.rollout.latents
    reward, groups = experience.rewards.total[update.rows], rollout.groups[update.rows]
    pairs = make_pairs(reward, groups)
    winners, losers = update.rows[pairs.winners], update.rows[pairs.losers]
    compared = PairedLatents(
        latents[winners.to(latents.device)],
        latents[losers.to(latents.device)],
        rollout.row_features(winners),
    )
    return learn_from_pairs(policy, compared, update, config, rows_per_batch)


def learn_from_pairs(
    policy: Policy,
    pairs: PairedLatents,
    update: Update,
    config: DPOConfig,
    pairs_per_batch: int,
) -> Metrics:
    """Gradients of one update over pairs, each at ``times_per_take`` noise levels.

    Without a pair there is neither a gradient nor anything to log.
    """
    tally, num_pairs = Tally(update.ranks), len(pairs.winners)
    if not num_pairs:
        return tally.result()
    batches = torch.split(torch.arange(num_pairs), pairs_per_batch) * config.times_per_take
    for number, batch in enumerate(batches):
        update.on_pass(number + 1 == len(batches))
        own, part = update.own_part(len(batch))
        together = pairs.part(batch)
        fresh = fresh_noise(policy, together.winners, update.generator)
        levels, noise = (drawn[own.to(drawn.device)] for drawn in fresh)
        compared = compare_pairs(policy, together.part(own), levels, noise, config)
        share = part * len(batch) / (num_pairs * config.times_per_take)
        (share * compared.loss).backward()  # type: ignore[no-untyped-call]
        tally.add(share, loss=compared.loss, margin=compared.preference.margin.mean())
        tally.add(share, accuracy=compared.preference.correct.float().mean())
        tally.add(share, **compared.pull.measured)
    return tally.result()
