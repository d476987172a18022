"""Making takes and having them judged: all that happens before an update."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from resonate_audio.core.types import Latents, Prompts, Rewards, TextFeatures, Waveform
from resonate_audio.pipeline.guests.guest import Guest
from resonate_audio.pipeline.path import Resonate
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.desk import JudgeDesk
from resonate_audio.training.loop.distributed import ALONE, Ranks
from resonate_audio.training.reinforce.advantage import (
    AdvantageConfig,
    Advantages,
    group_advantages,
)
from resonate_audio.training.reinforce.judging import wait_for_scores
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.rollout import (
    Bind,
    Rollout,
    SamplerConfig,
    Takes,
    sample_rollout,
)

Metrics = dict[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class Experience:
    """A judged rollout: what an update learns from."""

    rollout: Rollout
    audio: Waveform
    """Of all rows in the first process, of its own in the others."""
    rewards: Rewards
    advantages: Advantages
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each phase; ``reward`` is the wait for what was not judged beside it."""

    def kept_rows(self) -> Int[Tensor, " row"]:
        """Takes of the groups whose rewards differ; the others teach nothing."""
        return self.advantages.kept.nonzero().flatten()


@dataclass
class TakeMaker:
    """Samples takes of prompts, makes them audible and hands them to the judge.

    Texts are encoded one by one and kept: a text's features must not depend on which texts it
    came with, or a resumed run would differ from one that was never stopped.
    """

    policy: Policy
    resonate: Resonate | Guest
    """Around the policy's model: text encoder, VAE and vocoder."""
    sampler: SamplerConfig
    num_frames: int
    seed: int
    desk: JudgeDesk
    ranks: Ranks = ALONE
    _features: dict[str, TextFeatures] = field(default_factory=dict, init=False, repr=False)

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """Features of each text, on the policy's device."""
        for text in texts:
            if text not in self._features:
                self._features[text] = self.resonate.encode_text([text])
        rows = [self._features[text] for text in texts]
        tokens = torch.cat([row.tokens for row in rows]).to(self.policy.device)
        return TextFeatures(tokens, torch.cat([row.pooled for row in rows]).to(self.policy.device))

    def make_audible(self, latents: Float[Tensor, "row frame channel"]) -> Waveform:
        """Un-normalise, decode and vocode takes; loud ones are attenuated to a peak of 1.

        Differs from the official trainer, which decodes normalised latents, so that its judge
        hears another sound than users do. In the number format of training; with bf16, nano's
        sounds are judged as in float32 to 0.002 of a score (docs/reinforcement.md).
        """
        frame_rate_hz = self.resonate.config.frame_rate_hz
        plain = self.policy.model.unnormalize(latents)
        with self.policy.autocast():
            wave = self.resonate.to_waveform(Latents(plain, frame_rate_hz))
        return attenuate(Waveform(wave.samples.float(), wave.sample_rate_hz))

    def collect(
        self,
        prompts: Prompts,
        reward: Reward,
        advantage: AdvantageConfig,
        iteration: int,
        bind: Bind,
    ) -> Experience:
        """Sample, hear, judge, compare: the first seven stations of a reinforcement step.

        Args:
            prompts: texts and takes of each.
            reward: the judge.
            advantage: how scores become advantages.
            iteration: number of this rollout in the run.
            bind: whose takes they are.

        Raises:
            RewardError: the judge failed on a batch, in this process or in another; nothing is
                put in its place.
        """
        began = time.perf_counter()
        texts = prompts.row_texts()[self.ranks.rank :: self.ranks.world]
        waves, scores = list[Waveform](), list[Future[Rewards]]()
        decoding = 0.0

        def hear(takes: Takes) -> None:
            nonlocal decoding
            start = time.perf_counter()
            wave = self.make_audible(takes.latents)
            first = sum(len(earlier.samples) for earlier in waves)
            waves.append(wave)
            rows = texts[first : first + len(wave.samples)]
            scores.append(self.desk.submit(reward, wave, rows))
            decoding += time.perf_counter() - start

        rollout = sample_rollout(
            bind,
            prompts,
            self.encode(prompts.texts),
            self.sampler,
            (self.num_frames, self.policy.model.config.latent_channels),
            self.seed,
            iteration,
            hear,
            self.ranks,
        )
        sampled = time.perf_counter()
        rewards = wait_for_scores(self.desk, scores, self.ranks)
        judged = time.perf_counter()
        samples = self.ranks.join_at_first(torch.cat([wave.samples for wave in waves]))
        audio = Waveform(samples, waves[0].sample_rate_hz)
        seconds = {
            "rollout": sampled - began - decoding,
            "decode": decoding,
            "reward": judged - sampled,
        }
        advantages = group_advantages(rewards, rollout.groups, advantage)
        return Experience(rollout, audio, rewards, advantages, seconds)


def attenuate(wave: Waveform) -> Waveform:
    """Rows whose peak is over 1 brought to 1, as users get them; the others as they are."""
    peaks = wave.samples.abs().amax(dim=1, keepdim=True).clamp_min(1.0)
    return Waveform(wave.samples / peaks, wave.sample_rate_hz)
