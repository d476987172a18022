"""Takes, and what is kept of them."""

from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from tiny_model import TINY, random_features, random_networks

from resonate_audio.core.sampling import SolverSettings
from resonate_audio.core.types import Prompts, TextFeatures
from resonate_audio.flow.mean_flow import sampling_velocity
from resonate_audio.flow.ode import solve
from resonate_audio.flow.sde import SamplerKind, sde_step
from resonate_audio.model.presets import with_few_steps
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.rollout import (
    Rollout,
    SamplerConfig,
    TakeNoise,
    Takes,
    sample_rollout,
)

PROMPTS = Prompts(("dog", "rain"), takes=3)
SHAPE = (5, TINY.transformer.latent_channels)
CONFIG = SamplerConfig(num_steps=6, window=2, window_until=1.0, rows_per_batch=4)


def features(num_prompts: int = 2) -> TextFeatures:
    return random_features(torch.Generator().manual_seed(3), num_prompts)


def roll(config: SamplerConfig = CONFIG, iteration: int = 0, seed: int = 0) -> Rollout:
    policy = Policy(random_networks(TINY, seed=0).transformer, config.guidance_scale)
    return sample_rollout(policy.bind, PROMPTS, features(), config, SHAPE, seed, iteration)


def test_the_same_seed_and_iteration_give_the_same_takes() -> None:
    assert torch.equal(roll().latents, roll().latents)
    assert not torch.equal(roll().latents, roll(iteration=1).latents)
    assert not torch.equal(roll().latents, roll(seed=1).latents)


def test_takes_do_not_depend_on_the_batch_they_are_made_in() -> None:
    alone = roll(CONFIG.model_copy(update={"rows_per_batch": 1}))
    torch.testing.assert_close(alone.latents, roll().latents, rtol=1e-4, atol=1e-5)


def test_every_take_is_another() -> None:
    latents = roll().latents
    assert len({tuple(row.flatten().tolist()) for row in latents}) == PROMPTS.num_rows


def test_takes_of_a_prompt_can_share_their_first_noise() -> None:
    shared = CONFIG.model_copy(update={"same_noise": True, "window": None, "kind": "flow_sde"})
    first = roll(shared).path[:, 0]
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[3])


def test_replayed_with_the_same_batch_the_log_probabilities_are_the_same_bits() -> None:
    for kind in ("ou", "flow_sde", "dance_sde", "cps"):
        for guidance in (1.0, 4.5):
            config = CONFIG.model_copy(update={"kind": kind, "guidance_scale": guidance})
            policy = Policy(random_networks(TINY, seed=0).transformer, guidance)
            rollout = sample_rollout(policy.bind, PROMPTS, features(), config, SHAPE, 0, 0)
            for items in rollout.transitions(torch.arange(6), config.rows_per_batch):
                velocity = policy.bind(items.features)(
                    items.state, rollout.schedule.levels[items.step]
                )
                again = sde_step(
                    items.state, velocity, items.step, rollout.schedule,
                    next_state=items.next_state,
                )  # fmt: skip
                assert torch.equal(again.log_prob, items.log_prob), (kind, guidance)
                assert torch.equal(again.mean, items.mean), (kind, guidance)


def test_transitions_cover_each_step_of_each_take_once() -> None:
    rollout = roll()
    seen = [
        (row, step)
        for items in rollout.transitions(torch.tensor([1, 4, 5]), 2)
        for row, step in zip(items.row.tolist(), items.step.tolist(), strict=True)
    ]
    assert sorted(seen) == sorted((row, step) for row in (1, 4, 5) for step in rollout.window)


def test_a_step_ends_where_the_next_begins() -> None:
    rollout = roll(CONFIG.model_copy(update={"window": None}))
    batches = list(rollout.transitions(torch.arange(6), 6))
    assert len(batches) == CONFIG.num_steps - 1
    for earlier, later in pairwise(batches):
        assert torch.equal(earlier.next_state, later.state)


def test_outside_the_window_steps_are_those_of_the_ode() -> None:
    rollout = roll()
    inside = [step in rollout.window for step in range(CONFIG.num_steps)]
    assert rollout.schedule.has_density.tolist() == inside


def test_the_window_stays_in_its_part_and_leaves_the_last_step_out() -> None:
    config = SamplerConfig(num_steps=10, window=3, window_until=0.5)
    generator = torch.Generator().manual_seed(0)
    windows = {config.draw_window(generator) for _ in range(60)}
    assert windows == {range(0, 3), range(1, 4), range(2, 5)}
    late = SamplerConfig(num_steps=4, window=3, window_until=1.0)
    assert late.draw_window(generator) == range(3)
    every = SamplerConfig(num_steps=10, window=None)
    assert every.draw_window(generator) == range(9)


def test_takes_are_handed_over_batch_by_batch() -> None:
    handed: list[Takes] = []
    policy = Policy(random_networks(TINY, seed=0).transformer)
    rollout = sample_rollout(policy.bind, PROMPTS, features(), CONFIG, SHAPE, 0, 0, handed.append)
    assert [len(takes.latents) for takes in handed] == [4, 2]
    assert torch.equal(torch.cat([takes.latents for takes in handed]), rollout.latents)


@pytest.mark.parametrize("kind", ["ode", "ou", "flow_sde"])
def test_a_model_of_mean_velocities_is_taught_in_the_steps_that_it_is_used_in(
    kind: SamplerKind,
) -> None:
    config = SamplerConfig(kind=kind, num_steps=4, window=1, window_until=1.0, rows_per_batch=6)
    model = random_networks(with_few_steps(TINY), seed=0).transformer
    policy = Policy(model, times=config.schedule(range(0)).levels)
    rollout = sample_rollout(policy.bind, PROMPTS, features(), config, SHAPE, 0, 0)
    if kind == "ode":
        start = TakeNoise.of(torch.arange(6), 3, SHAPE, 0, 0, False).start
        conditions = model.condition(rollout.row_features(torch.arange(6)))
        settings = SolverSettings(num_inference_steps=4)
        with torch.no_grad():
            velocity = sampling_velocity(model, conditions, conditions, settings, is_mean=True)
            torch.testing.assert_close(rollout.latents, solve(velocity, start, settings))
        return
    [items] = rollout.transitions(torch.arange(6), 6)
    levels = rollout.schedule.levels[items.step]
    again = sde_step(
        items.state, policy.bind(items.features)(items.state, levels), items.step,
        rollout.schedule, next_state=items.next_state,
    )  # fmt: skip
    assert torch.equal(again.log_prob, items.log_prob)
    anywhere = policy.bind(items.features, 1.0)(items.state, levels)
    expected = model(items.state, levels, model.condition(items.features))
    torch.testing.assert_close(anywhere, expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": 10}, "window 10: expected at most 9"),
        ({"window": 0}, "greater than or equal to 1"),
        ({"eta": 0.0}, "eta 0.0"),
        ({"eta": -1.0}, "eta -1.0"),
        ({"kind": "euler"}, "kind"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"num_steps": 1, "window": None}, "never trained"),
    ],
)
def test_what_cannot_be_sampled_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SamplerConfig.model_validate(fields)
