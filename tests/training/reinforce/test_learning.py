"""Every algorithm makes takes that a known judge likes better."""

from collections.abc import Callable

import pytest
import torch
from test_reinforce import STEPS, Loudness, make  # noqa: F401 - the fixture is used by name

from resonate_audio.core.types import Prompts
from resonate_audio.training.algorithms.best_of_n import RWRConfig
from resonate_audio.training.reinforce.advantage import AdvantageConfig
from resonate_audio.training.reinforce.experience import TakeMaker
from resonate_audio.training.reinforce.trainer import Update

NUM_STEPS = 20
DPO_STEPS, DPO_RATE = 40, 2e-3
"""Only the best and the worst of sixteen takes say anything there, and the reference makes them."""
BY_LIKELIHOOD = ("grpo", "guard", "dppo")
PROMPTS = Prompts(("dog", "rain"), takes=16)


def loudness(maker: TakeMaker) -> float:
    """Mean reward of takes that no step has learnt from."""
    experience = maker.collect(PROMPTS, Loudness(), AdvantageConfig(), 1000, maker.policy.bind)
    return float(experience.rewards.total.mean())


@pytest.mark.parametrize("name", ["grpo", "guard", "dppo", "nft", "awm", "dpo", "rwr", "raft"])
def test_the_reward_rises(make: Callable[..., TakeMaker], name: str) -> None:  # noqa: F811
    step, config = STEPS[name]
    if name == "rwr":
        config = RWRConfig(temperature=0.001)
    maker = make(kind="ou" if name in BY_LIKELIHOOD else "ode", rows_per_batch=32)
    num_steps, rate = (DPO_STEPS, DPO_RATE) if name == "dpo" else (NUM_STEPS, 1e-3)
    optimizer = torch.optim.Adam(maker.policy.model.parameters(), lr=rate)
    bind = maker.policy.bind_reference if name == "dpo" else maker.policy.bind
    before = loudness(maker)
    for iteration in range(num_steps):
        maker.policy.remember()
        experience = maker.collect(PROMPTS, Loudness(), AdvantageConfig(), iteration, bind)
        rows, generator = experience.kept_rows(), torch.Generator().manual_seed(iteration)
        optimizer.zero_grad()
        step(maker.policy, experience, Update(rows, True, generator), config, 32)
        optimizer.step()
    assert loudness(maker) > 1.15 * before
