"""Takes of prompts by the policy, with everything that training replays later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import ConfigError
from resonate_audio.core.types import Prompts, TextFeatures
from resonate_audio.flow.path import Velocity
from resonate_audio.flow.sde import SamplerKind, SDESchedule, make_schedule, sde_step
from resonate_audio.training.loop.distributed import ALONE, Ranks
from resonate_audio.training.loop.task import generator_for

Bind = Callable[[TextFeatures], Velocity]
"""Velocity of (z, t) for prompts, one a row."""


class SamplerConfig(FrozenConfig):
    """How takes are drawn; the defaults train two early steps without guidance."""

    kind: SamplerKind = "ou"
    eta: float = 1.0
    """η, how noisy a step is."""
    num_steps: int = Field(10, ge=1, le=10_000)
    window: int | None = Field(2, ge=1, le=10_000)
    """Stochastic steps in a row, the ones that are trained; None: every step is stochastic and all
    but the last are trained."""
    window_until: float = Field(0.5, gt=0, le=1)
    """Part of the trajectory in which the window lies, from its noisy end."""
    guidance_scale: float = Field(1.0, ge=1)
    """w in rollout and training alike; 1 leaves guidance out."""
    same_noise: bool = False
    """Start all takes of a prompt from the same noise."""
    rows_per_batch: int = Field(24, ge=1, le=100_000)
    """Takes that are computed together, over all processes."""

    @model_validator(mode="after")
    def _window_fits(self) -> SamplerConfig:
        try:
            make_schedule(self.kind, self.eta, self.num_steps)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        if self.window is not None and self.window > self.num_steps - 1:
            raise ValueError(
                f"window {self.window}: expected at most {self.num_steps - 1}, since the last of "
                f"{self.num_steps} steps is never trained"
            )
        if self.window is None and self.num_steps < 2:
            raise ValueError("num_steps 1: expected 2 or more, since the last is never trained")
        return self

    def draw_window(self, generator: torch.Generator) -> range:
        """Steps to train in one iteration: the same for every row and every process."""
        last = self.num_steps - 1
        if self.window is None:
            return range(last)
        latest = max(0, min(int(self.num_steps * self.window_until), last) - self.window)
        start = int(torch.randint(latest + 1, (), generator=generator))
        return range(start, start + self.window)

    def schedule(self, window: range) -> SDESchedule:
        """Stochastic steps inside the window, Euler steps of the ODE elsewhere."""
        full = make_schedule(self.kind, self.eta, self.num_steps)
        return full if self.window is None else full.noisy_only_at(window)


@dataclass(frozen=True)
class Transitions:
    """Single steps of single takes, in any order: what a likelihood loss is taken over."""

    row: Int[Tensor, " item"]
    """Take of each item, for its advantage."""
    step: Int[Tensor, " item"]
    state: Float[Tensor, "item frame channel"]
    next_state: Float[Tensor, "item frame channel"]
    mean: Float[Tensor, "item frame channel"]
    """Mean of the step when it was sampled."""
    log_prob: Float[Tensor, " item"]
    """Log-density of the step when it was sampled, mean over dimensions."""
    features: TextFeatures
    share: float
    """Of all items of all processes; the shares add up to 1."""


@dataclass(frozen=True)
class Rollout:
    """Takes of prompts; row = prompt × takes + take.

    With several processes row r belongs to process r mod world, which alone has its steps.
    """

    prompts: Prompts
    features: TextFeatures
    """One row per *prompt*."""
    schedule: SDESchedule
    window: range
    path: Float[Tensor, "own time frame channel"]
    """States before each step of the window and after the last, float32."""
    means: Float[Tensor, "own step frame channel"]
    log_probs: Float[Tensor, "own step"]
    latents: Float[Tensor, "row frame channel"]
    """Where the takes of all processes ended: normalised latents."""
    ranks: Ranks = ALONE

    @property
    def groups(self) -> Int[Tensor, " row"]:
        """Number of each take's prompt."""
        prompts = torch.arange(len(self.prompts.texts))
        return prompts.repeat_interleave(self.prompts.takes)

    def row_features(self, rows: Int[Tensor, " item"]) -> TextFeatures:
        """Features of some takes' prompts."""
        prompts = rows.to(self.features.pooled.device) // self.prompts.takes
        return self.features.rows(prompts)

    def transitions(self, rows: Int[Tensor, " row"], size: int) -> Iterator[Transitions]:
        """Every trained step of some takes, at most ``size`` at a time, step by step.

        One step of many takes comes before the next step, so that a batch of ``size`` rows is
        computed here just as it was in the rollout. Of each batch a process gives its own rows,
        or one that weighs nothing, so that all make equally many passes.
        """
        total = len(rows) * len(self.window)
        for number, step in enumerate(self.window):
            for batch in torch.split(rows, size):
                part = batch[batch % self.ranks.world == self.ranks.rank]
                share = len(part) / total
                part = part if len(part) else batch.new_full((1,), self.ranks.rank)
                there = part.to(self.path.device) // self.ranks.world
                yield Transitions(
                    row=part,
                    share=share,
                    step=torch.full_like(there, step),
                    state=self.path[there, number],
                    next_state=self.path[there, number + 1],
                    mean=self.means[there, number],
                    log_prob=self.log_probs[there, number],
                    features=self.row_features(part),
                )


@dataclass(frozen=True)
class Takes:
    """Some neighbouring rows of a rollout, as soon as they are there."""

    path: Float[Tensor, "row time frame channel"]
    means: Float[Tensor, "row step frame channel"]
    log_probs: Float[Tensor, "row step"]
    latents: Float[Tensor, "row frame channel"]


@torch.no_grad()
def sample_rollout(
    bind: Bind,
    prompts: Prompts,
    features: TextFeatures,
    config: SamplerConfig,
    shape: tuple[int, int],
    seed: int,
    iteration: int,
    on_takes: Callable[[Takes], None] = lambda takes: None,
    ranks: Ranks = ALONE,
) -> Rollout:
    """Draw takes of each prompt.

    A take's noise depends on (seed, iteration, row) alone, so batches of another size give the
    same takes up to the rounding of the kernels.

    Args:
        bind: velocity for given features: of the policy, or of what it was before.
        prompts: texts and takes of each.
        features: one row per prompt, on the device to compute on.
        config: the sampler.
        shape: frames and channels of a take.
        seed: of the run.
        iteration: number of this rollout in the run.
        on_takes: given each batch of takes once it is sampled; decoding and judging may start.
        ranks: whose rows to sample; batches start at multiples of their number.
    """
    window = config.draw_window(generator_for(seed, iteration, "cpu", "window"))
    device = features.tokens.device
    schedule = config.schedule(window).to(device)
    done: list[Takes] = []
    for batch in torch.split(torch.arange(prompts.num_rows), config.rows_per_batch):
        rows = ranks.mine(batch)
        if not len(rows):
            continue
        asked = rows.to(device) // prompts.takes
        velocity = bind(features.rows(asked))
        noise = TakeNoise.of(rows, prompts.takes, shape, seed, iteration, config.same_noise)
        done.append(sample_takes(velocity, schedule, window, noise, device))
        on_takes(done[-1])
    return Rollout(
        prompts,
        features,
        schedule,
        window,
        path=torch.cat([takes.path for takes in done]),
        means=torch.cat([takes.means for takes in done]),
        log_probs=torch.cat([takes.log_probs for takes in done]),
        latents=ranks.join_rows(torch.cat([takes.latents for takes in done])),
        ranks=ranks,
    )


@dataclass(frozen=True)
class TakeNoise:
    """The random numbers of some takes: one stream each, and where each starts from."""

    start: Float[Tensor, "row frame channel"]
    streams: Sequence[torch.Generator]

    @classmethod
    def of(
        cls,
        rows: Int[Tensor, " row"],
        takes: int,
        shape: tuple[int, int],
        seed: int,
        iteration: int,
        same_noise: bool,
    ) -> TakeNoise:
        """Open the streams of some rows."""
        streams = [generator_for(seed, iteration, "cpu", f"take {row}") for row in rows.tolist()]
        if same_noise:
            groups = (rows // takes).tolist()
            starts = [generator_for(seed, iteration, "cpu", f"prompt {group}") for group in groups]
        else:
            starts = streams
        return cls(
            torch.stack([torch.randn(shape, generator=stream) for stream in starts]), streams
        )

    def draw(self) -> Float[Tensor, "row frame channel"]:
        """Fresh noise for the next stochastic step."""
        shape = self.start.shape[1:]
        return torch.stack([torch.randn(shape, generator=stream) for stream in self.streams])


def sample_takes(
    velocity: Velocity,
    schedule: SDESchedule,
    window: range,
    noise: TakeNoise,
    device: torch.device,
) -> Takes:
    """Carry some takes from noise to data, keeping what the steps of the window need."""
    z = noise.start.to(device)
    path, means, log_probs = [], [], []
    for step in range(schedule.num_steps):
        index = torch.full((len(z),), step, device=device)
        fresh = noise.draw().to(device) if schedule.std[step] > 0 else None
        taken = sde_step(z, velocity(z, schedule.levels[index]), index, schedule, noise=fresh)
        if window.start <= step <= window.stop:
            path.append(z)
        if step in window:
            means.append(taken.mean)
            log_probs.append(taken.log_prob)
        z = taken.next_state
    return Takes(torch.stack(path, 1), torch.stack(means, 1), torch.stack(log_probs, 1), z)
