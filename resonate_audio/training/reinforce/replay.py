"""Going over the sampled steps again, with a gradient: what likelihood losses are taken over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from resonate_audio.core.errors import TrainingError
from resonate_audio.flow.sde import SDESchedule, Transition, sde_step
from resonate_audio.training.loop.distributed import ALONE, Ranks
from resonate_audio.training.loop.losses import MAXIMA
from resonate_audio.training.reinforce.divergence import (
    gaussian_kl,
    norm_ratio,
    velocity_distance,
)
from resonate_audio.training.reinforce.experience import Experience, Metrics
from resonate_audio.training.reinforce.fresh import NoisedTakes
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.rollout import Transitions
from resonate_audio.training.reinforce.trainer import Update

CLIP_OVER_NOISE = 4.0
"""A clip range must be this many times as wide as what rounding does to the log-ratio."""


@dataclass(frozen=True)
class Replay:
    """Some steps of some takes, as the policy sees them now and as it saw them then."""

    items: Transitions
    velocity: Float[Tensor, "item frame channel"]
    taken: Transition
    """By the policy as it is now, with a gradient."""
    old_mean: Float[Tensor, "item frame channel"]
    old_log_prob: Float[Tensor, " item"]
    advantage: Float[Tensor, " item"]
    levels: Float[Tensor, " item"]
    """Noise level of each state."""
    share: float
    """Of all items of the update; the shares add up to 1."""
    mismatch: Float[Tensor, ""]
    """Largest |Δ log p| between now and then; on an unchanged policy it is rounding alone."""


def replays(
    policy: Policy, experience: Experience, update: Update, rows_per_batch: int
) -> Iterator[Replay]:
    """Replay every trained step of an update's takes.

    In the first update after a rollout the policy is the one that made it, so what it says now
    *is* the old log-density, and the ratio is exactly 1 whatever the number format; the mismatch
    with the log-densities of the rollout is kept as a check, or a wrong schedule would hide.
    Later updates are compared with the rollout's own numbers.
    """
    rollout = experience.rollout
    num_passes = len(rollout.window) * -(-len(update.rows) // rows_per_batch)
    for number, items in enumerate(rollout.transitions(update.rows, rows_per_batch)):
        update.on_pass(number + 1 == num_passes)
        levels = rollout.schedule.levels[items.step]
        velocity = policy.bind(items.features)(items.state, levels)
        taken = sde_step(
            items.state, velocity, items.step, rollout.schedule, next_state=items.next_state
        )
        now_mean, now_log_prob = taken.mean.detach(), taken.log_prob.detach()
        advantage = experience.advantages.values[items.row].to(velocity.device, torch.float32)
        yield Replay(
            items=items,
            velocity=velocity,
            taken=taken,
            old_mean=now_mean if update.first else items.mean,
            old_log_prob=now_log_prob if update.first else items.log_prob,
            advantage=advantage,
            levels=levels,
            share=items.share,
            mismatch=(now_log_prob - items.log_prob).abs().max(),
        )


@dataclass
class Tally:
    """Means and maxima over the batches of one update, left on the device."""

    ranks: Ranks = ALONE
    means: Metrics = field(default_factory=dict)
    maxima: Metrics = field(default_factory=dict)

    def add(self, share: float, **values: Float[Tensor, ""]) -> None:
        """Count a batch's means with its share of the update."""
        for name, value in values.items():
            key = name.replace("__", "/")
            self.means[key] = self.means.get(key, torch.zeros(())) + share * value.detach()

    def add_surrogate(
        self,
        share: float,
        ratio: Float[Tensor, " item"],
        above: Bool[Tensor, " item"],
        below: Bool[Tensor, " item"],
    ) -> None:
        """Count where the ratios of a clipped objective lie."""
        self.add(share, ratio__mean=ratio.mean())
        self.add(share, clip__high=above.float().mean(), clip__low=below.float().mean())
        self.add_maximum(ratio__max_abs_dev=(ratio - 1).abs().max())

    def add_maximum(self, **values: Float[Tensor, ""]) -> None:
        """Keep the largest value of any batch."""
        for name, value in values.items():
            key, value = name.replace("__", "/"), value.detach()
            assert key in MAXIMA, key
            self.maxima[key] = (
                torch.maximum(self.maxima[key], value) if key in self.maxima else value
            )

    def result(self) -> Metrics:
        """Everything that was counted, by all processes."""
        return _joined(self.means, self.ranks.sum) | _joined(self.maxima, self.ranks.max)


def _joined(values: Metrics, join: Callable[[Tensor], Tensor]) -> Metrics:
    if not values:
        return {}
    joined = join(torch.stack([value.float() for value in values.values()]))
    return dict(zip(values, joined, strict=True))


@dataclass(frozen=True)
class Pull:
    """Pull of the reference, the model before training."""

    loss: Float[Tensor, ""]
    measured: Metrics
    """Distances from the reference, by name in the log; empty where it was not asked."""


def pull_to_reference(
    policy: Policy, replay: Replay, schedule: SDESchedule, kl: float, velocity_kl: float
) -> Pull:
    """Weighted divergences on replayed steps; nothing is computed for weights of 0.

    Measures ``kl``, the ``gaussian_kl`` per dimension, and ``velocity_kl``, the
    ``velocity_distance``.
    """
    if not (kl or velocity_kl):
        return Pull(replay.velocity.new_zeros(()), {})
    items = replay.items
    reference = policy.bind_reference(items.features)(items.state, replay.levels)
    there = sde_step(items.state, reference, items.step, schedule, next_state=items.next_state)
    step_kl = gaussian_kl(replay.taken.mean, there.mean, replay.taken.std).mean()
    distance = velocity_distance(replay.velocity, reference).mean()
    loss = kl * step_kl + velocity_kl * distance
    return Pull(loss, {"kl": step_kl, "velocity_kl": distance})


def pull_velocity(
    policy: Policy,
    noised: NoisedTakes,
    velocity: Float[Tensor, "item frame channel"],
    velocity_kl: float,
    norm_guard: float,
) -> Pull:
    """``pull_from`` the reference on noised takes; nothing is computed for weights of 0."""
    if not (velocity_kl or norm_guard):
        return Pull(velocity.new_zeros(()), {})
    bound = policy.bind_reference(noised.features, policy.regressed_guidance)
    return pull_from(velocity, bound(noised.state, noised.levels), velocity_kl, norm_guard)


def pull_from(
    velocity: Float[Tensor, "item frame channel"],
    reference: Float[Tensor, "item frame channel"],
    velocity_kl: float,
    norm_guard: float,
) -> Pull:
    """Pull of a reference's velocities on the policy's.

    w·mean (v − v_ref)² + λ·max(0, ‖v‖ / ‖v_ref‖ − 1), mean over rows

    The second term is a hinge on the norm [NormGuard, arXiv:2606.27771]: what learns from judged
    takes by regression tends to make velocities larger than they were, which the judge does not
    hear and few steps do not forgive. Ours is relative to the reference's norm.

    Args:
        velocity: v of the policy, with the gradient.
        reference: v_ref of the model before training at the same states.
        velocity_kl: w.
        norm_guard: λ.

    Measures ``velocity_kl``, the ``velocity_distance``, and ``velocity_norm``, the ``norm_ratio``.
    """
    distance = velocity_distance(velocity, reference).mean()
    norm = norm_ratio(velocity, reference)
    loss = velocity_kl * distance + norm_guard * (norm - 1).clamp(min=0).mean()
    return Pull(loss, {"velocity_kl": distance, "velocity_norm": norm.mean()})


def check_clip(clip: float, mismatch: float, name: str) -> None:
    """Refuse a clip range that rounding alone would reach.

    Raises:
        TrainingError: names both numbers.
    """
    if clip < CLIP_OVER_NOISE * mismatch:
        raise TrainingError(
            f"{name} {clip:g} is less than {CLIP_OVER_NOISE:g} times what rounding does to log p, "
            f"{mismatch:.3g}; use {CLIP_OVER_NOISE * mismatch:.2g} or more, "
            "or run.precision float32"
        )
