"""The whole loop: takes, judge, advantages, update, on a tiny model."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import TINY

from resonate_audio.core.errors import RewardError, TrainingError
from resonate_audio.core.types import Prompts, Rewards, Waveform
from resonate_audio.model.folder import read_networks
from resonate_audio.model.text_encoder import TextEncoder
from resonate_audio.pipeline.path import Resonate
from resonate_audio.rewards.base import Reward, make_rewards
from resonate_audio.rewards.desk import JudgeDesk
from resonate_audio.training.algorithms.awm import AWMConfig, awm_step
from resonate_audio.training.algorithms.best_of_n import RAFTConfig, RWRConfig, best_of_n_step
from resonate_audio.training.algorithms.dpo import DPOConfig, dpo_step
from resonate_audio.training.algorithms.dppo import DPPOConfig, dppo_step
from resonate_audio.training.algorithms.grpo import GRPOConfig, grpo_step
from resonate_audio.training.algorithms.guard import GuardConfig, guard_step
from resonate_audio.training.algorithms.nft import NFTConfig, nft_step
from resonate_audio.training.reinforce.advantage import AdvantageConfig
from resonate_audio.training.reinforce.experience import Experience, Metrics, TakeMaker
from resonate_audio.training.reinforce.lora import LoraSettings
from resonate_audio.training.reinforce.policy import Policy, trained_weights
from resonate_audio.training.reinforce.rollout import SamplerConfig
from resonate_audio.training.reinforce.trainer import Update

PROMPTS = Prompts(("dog", "rain"), takes=3)
LORA = LoraSettings(rank=2, alpha=4.0)
STEPS: dict[str, tuple[Callable[..., Metrics], Any]] = {
    "grpo": (grpo_step, GRPOConfig(kl=0.0)),
    "grpo_kl": (grpo_step, GRPOConfig(kl=0.1, velocity_kl=0.1)),
    "guard": (guard_step, GuardConfig(clip=1e-4)),
    "dppo": (dppo_step, DPPOConfig()),
    "nft": (nft_step, NFTConfig()),
    "awm": (awm_step, AWMConfig()),
    "dpo": (dpo_step, DPOConfig()),
    "rwr": (best_of_n_step, RWRConfig()),
    "raft": (best_of_n_step, RAFTConfig()),
}


class Loudness:
    """Likes loud sounds: a real judge of real samples."""

    name = "loudness"

    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        level = audio.samples.double().square().mean(dim=1).sqrt()
        return make_rewards(level, self.name, len(prompts), {"level": level})


class Indifferent(Loudness):
    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        return make_rewards([0.5] * len(prompts), "indifferent", len(prompts))


class Broken(Loudness):
    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        return make_rewards([float("nan")] * len(prompts), "broken", len(prompts))


@pytest.fixture
def make(tiny_model: Path) -> Callable[..., TakeMaker]:
    """Everything that makes takes, around a fresh copy of the tiny model."""
    desk = JudgeDesk()

    def build(
        lora: LoraSettings | None = None,
        precision: torch.dtype | None = None,
        **sampler: Any,
    ) -> TakeMaker:
        networks = read_networks(tiny_model)
        torch.manual_seed(0)
        policy = Policy(networks.transformer, sampler.get("guidance_scale", 1.0), lora, precision)
        encoder = TextEncoder.from_folder(TINY.text_encoder, tiny_model / "text_encoder")
        resonate = Resonate(networks, encoder, device="cpu", transformer=policy.model)
        config = SamplerConfig(**({"num_steps": 4, "rows_per_batch": 4} | sampler))
        return TakeMaker(policy, resonate, config, 5, 0, desk)

    return build


def collect(maker: TakeMaker, reward: Reward | None = None, iteration: int = 0) -> Experience:
    return maker.collect(
        PROMPTS, reward or Loudness(), AdvantageConfig(), iteration, maker.policy.bind
    )


def learn(
    maker: TakeMaker, experience: Experience, name: str, first: bool = True, rows: int = 4
) -> Metrics:
    step, config = STEPS[name]
    update = Update(torch.arange(PROMPTS.num_rows), first, torch.Generator().manual_seed(0))
    maker.policy.remember()
    return step(maker.policy, experience, update, config=config, rows_per_batch=rows)


def gradients(maker: TakeMaker) -> dict[str, torch.Tensor]:
    return {
        name: value.grad.clone()
        for name, value in maker.policy.model.named_parameters()
        if value.grad is not None
    }


def test_the_judge_hears_what_a_user_would_hear(make: Callable[..., TakeMaker]) -> None:
    maker = make()
    experience = collect(maker)
    latents = maker.policy.model.unnormalize(experience.rollout.latents)
    mel = maker.resonate.vae.decode(latents)
    samples = maker.resonate.vocoder(mel)
    expected = samples / samples.abs().amax(dim=1, keepdim=True).clamp_min(1.0)
    torch.testing.assert_close(experience.audio.samples, expected, rtol=1e-4, atol=1e-5)
    assert experience.audio.sample_rate_hz == TINY.mel.sample_rate_hz


def test_each_row_is_judged_for_its_own_prompt(make: Callable[..., TakeMaker]) -> None:
    heard: list[str] = []

    class Listing(Loudness):
        async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
            heard.extend(prompts)
            return await super().score(audio, prompts)

    collect(make(), Listing())
    assert heard == ["dog"] * 3 + ["rain"] * 3


def test_a_judge_that_fails_stops_the_step(make: Callable[..., TakeMaker]) -> None:
    with pytest.raises(RewardError, match="broken: total of row 1 is nan"):
        collect(make(), Broken())


def test_equal_rewards_leave_nothing_to_learn_from(make: Callable[..., TakeMaker]) -> None:
    assert len(collect(make(), Indifferent()).kept_rows()) == 0


def test_features_do_not_depend_on_the_company_of_a_text(make: Callable[..., TakeMaker]) -> None:
    together, alone = make().encode(["dog", "rain bell wind"]), make().encode(["dog"])
    assert torch.equal(together.tokens[:1], alone.tokens)
    assert torch.equal(together.pooled[:1], alone.pooled)


KINDS = [*itertools.product([None, LORA], [1.0, 4.5], [None, torch.bfloat16])]


@pytest.fixture(params=KINDS, ids=str)
def maker(request: pytest.FixtureRequest, make: Callable[..., TakeMaker]) -> TakeMaker:
    """Makers of all weights or adapters, with guidance or without, in both number formats."""
    lora, guidance_scale, precision = request.param
    return make(lora, precision, guidance_scale=guidance_scale, window=3, window_until=1.0)


def test_on_policy_the_ratio_is_exactly_one(maker: TakeMaker) -> None:
    metrics = learn(maker, collect(maker), "grpo")
    assert metrics["ratio/max_abs_dev"].item() == 0.0
    assert metrics["ratio/mean"].item() == 1.0
    assert metrics["clip/high"].item() == metrics["clip/low"].item() == 0.0


def test_in_the_batches_of_the_rollout_its_own_log_probabilities_come_back(
    maker: TakeMaker,
) -> None:
    experience = collect(maker)
    metrics = learn(maker, experience, "grpo", first=True, rows=maker.sampler.rows_per_batch)
    assert metrics["ratio/noise_floor"].item() == 0.0


def test_a_clip_within_rounding_is_refused_with_the_numbers(
    make: Callable[..., TakeMaker],
) -> None:
    maker = make()
    experience = collect(maker)
    maker.policy.precision = torch.bfloat16  # replayed in another format than it was sampled in
    update = Update(torch.arange(6), True, torch.Generator().manual_seed(0))
    with pytest.raises(TrainingError, match=r"algorithm\.clip 1e-09 is less than 4 times"):
        grpo_step(maker.policy, experience, update, GRPOConfig(clip=1e-9, kl=0), rows_per_batch=1)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_every_algorithm_gives_gradients_to_what_is_trained_alone(
    make: Callable[..., TakeMaker], name: str, lora: LoraSettings | None
) -> None:
    maker = make(lora)
    metrics = learn(maker, collect(maker), name)
    trained = set(trained_weights(maker.policy.model))
    assert set(gradients(maker)) <= trained
    assert any(value.abs().max() > 0 for value in gradients(maker).values())
    assert all(value.isfinite() for value in metrics.values())


@pytest.mark.parametrize("name", ["grpo", "grpo_kl", "guard", "dppo"])
def test_gradients_do_not_depend_on_how_an_update_is_split(
    make: Callable[..., TakeMaker], name: str
) -> None:
    found = []
    for rows in (2, 6):
        maker = make(window=2)
        learn(maker, collect(maker), name, rows=rows)
        found.append(gradients(maker))
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], rtol=1e-3, atol=1e-7)


def test_the_grpo_gradient_is_that_of_the_reward_weighted_log_likelihood(
    make: Callable[..., TakeMaker],
) -> None:
    maker = make(window=1)
    experience = collect(maker)
    learn(maker, experience, "grpo", rows=6)
    found = gradients(maker)["head.conv.bias"]
    parameter = maker.policy.model.head.conv.bias
    assert parameter is not None
    rollout = experience.rollout

    def objective() -> float:
        items = next(rollout.transitions(torch.arange(6), 6))
        from resonate_audio.flow.sde import sde_step

        velocity = maker.policy.bind(items.features)(
            items.state, rollout.schedule.levels[items.step]
        )
        taken = sde_step(
            items.state.double(), velocity, items.step, rollout.schedule,
            next_state=items.next_state,
        )  # fmt: skip
        gain = -experience.advantages.values * taken.log_prob.detach().double()
        return float(gain.mean())

    step = 1e-2
    for channel in range(3):
        with torch.no_grad():
            parameter[channel] += step
            up = objective()
            parameter[channel] -= 2 * step
            down = objective()
            parameter[channel] += step
        assert (up - down) / (2 * step) == pytest.approx(found[channel].item(), rel=2e-2, abs=1e-5)


def test_later_updates_compare_with_the_rollout(make: Callable[..., TakeMaker]) -> None:
    maker = make()
    experience = collect(maker)
    learn(maker, experience, "grpo")
    with torch.no_grad():
        for value in maker.policy.model.parameters():
            if value.grad is not None:
                value.sub_(0.05 * value.grad)
    metrics = learn(maker, experience, "grpo", first=False)
    assert metrics["ratio/max_abs_dev"].item() > 0


@pytest.mark.parametrize("name", ["nft", "awm", "dpo"])
def test_the_norm_guard_pulls_back_a_policy_that_grew(
    make: Callable[..., TakeMaker], name: str
) -> None:
    """A step down the guard's gradient shrinks velocities that were made a fifth larger."""
    step, config = STEPS[name]
    maker = make()
    experience = collect(maker)
    head = [*maker.policy.model.head.parameters()]
    with torch.no_grad():
        for value in head:
            value.mul_(1.2)
    maker.policy.remember()
    found: list[list[torch.Tensor]] = []
    for weight in (0.0, 10.0):
        maker.policy.model.zero_grad()
        update = Update(torch.arange(6), True, torch.Generator().manual_seed(0))
        guarded = config.model_copy(update={"norm_guard": weight})
        metrics = step(maker.policy, experience, update, config=guarded, rows_per_batch=6)
        assert metrics["velocity_norm"].item() > 1.05
        found.append([value.grad.clone() for value in head if value.grad is not None])
    added = zip(head, *found, strict=True)
    assert sum(float((value.detach() * (new - old)).sum()) for value, old, new in added) > 0


def test_an_update_without_a_pair_teaches_nothing(make: Callable[..., TakeMaker]) -> None:
    maker = make()
    assert learn(maker, collect(maker, Indifferent()), "dpo") == {}
    assert gradients(maker) == {}
