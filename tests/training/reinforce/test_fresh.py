"""Takes noised afresh: what losses without likelihoods are taken over."""

import torch
from tiny_model import TINY, random_features, random_networks

from resonate_audio.core.types import Prompts
from resonate_audio.flow.path import velocity_target
from resonate_audio.flow.sde import make_schedule
from resonate_audio.flow.times import uniform_grid
from resonate_audio.model.presets import with_few_steps
from resonate_audio.training.algorithms.dpo import DPOConfig, PairedLatents, compare_pairs
from resonate_audio.training.reinforce.fresh import NoisedTakes, noised_takes
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.rollout import Rollout
from resonate_audio.training.reinforce.trainer import Update

STEPS = 4


def a_policy(few_steps: bool) -> Policy:
    """A random model whose head says something, of mean velocities or of plain ones."""
    config = with_few_steps(TINY, STEPS) if few_steps else TINY
    model, generator = random_networks(config, seed=0).transformer, torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return Policy(model, times=uniform_grid(STEPS))


def a_rollout() -> Rollout:
    """Two takes of each of two prompts."""
    generator = torch.Generator().manual_seed(3)
    features = random_features(generator)
    latents = torch.randn(4, 5, TINY.transformer.latent_channels, generator=generator)
    schedule = make_schedule("ode", 0.0, STEPS)
    prompts, start = Prompts(("rain", "wind"), 2), torch.zeros_like(latents)[:, None]
    steps, scores = start[:, :0], torch.zeros(4, 0)
    return Rollout(prompts, features, schedule, range(0), start, steps, scores, latents)


def noised(taught: Policy) -> NoisedTakes:
    update = Update(torch.arange(4), True, torch.Generator().manual_seed(1))
    (part,) = noised_takes(taught, a_rollout(), update, times_per_take=1, rows_per_batch=4)
    return part


def straight(part: NoisedTakes) -> torch.Tensor:
    """Noise minus data, from state = (1 − t)·data + t·noise."""
    data, t = a_rollout().latents[part.row], part.levels[:, None, None]
    return velocity_target(data, (part.state - (1 - t) * data) / t)


def test_a_plain_model_is_held_to_the_velocity_of_the_take() -> None:
    part = noised(a_policy(few_steps=False))
    torch.testing.assert_close(part.target, straight(part))


def test_a_model_of_few_steps_is_held_to_the_mean_velocity_of_the_take() -> None:
    """Held to the plain one, its judged takes pull it away from itself, whatever their rewards."""
    taught = a_policy(few_steps=True)
    part = noised(taught)
    expected = taught.regressed_target(part.features, part.state, part.levels, straight(part))
    torch.testing.assert_close(part.target, expected)
    assert (part.target - straight(part)).abs().max() > 0.01


def test_pairs_are_compared_by_the_mean_velocity_of_a_model_of_few_steps() -> None:
    """At the start the loss pulls by β/4 times what separates the squared errors of a pair."""
    taught, rollout = a_policy(few_steps=True), a_rollout()
    features = rollout.row_features(torch.tensor([0, 2]))
    winners, losers = rollout.latents[[0, 2]], rollout.latents[[1, 3]]
    levels = torch.tensor([0.25, 1.0])
    noise = torch.randn(winners.shape, generator=torch.Generator().manual_seed(2))
    pairs = PairedLatents(winners, losers, features)
    compared = compare_pairs(taught, pairs, levels, noise, DPOConfig(beta=1.0))
    compared.preference.pairs.sum().backward()  # type: ignore[no-untyped-call]
    weight = taught.model.latent_in.linear.weight
    found, weight.grad = weight.grad, None
    pulls = torch.zeros(())
    for data, sign in ((winners, 1), (losers, -1)):
        state = (1 - levels[:, None, None]) * data + levels[:, None, None] * noise
        target = taught.regressed_target(features, state, levels, velocity_target(data, noise))
        velocity = taught.bind(features, taught.regressed_guidance)(state, levels)
        pulls = pulls + sign * (velocity - target).square().mean(dim=(1, 2)).sum() / 4
    (expected,) = torch.autograd.grad(pulls, weight)
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
