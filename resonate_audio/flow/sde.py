"""Solvers that add noise at every step, so that a step is a Gaussian with a density.

With σ the noise level, v the velocity, x̂0 = x − σv and ε̂ = x + (1−σ)v, every kind is

    x' = (1−σ')·x̂0 + a·ε̂ + s·z,    z ~ N(0, I),    σ' < σ

and differs in a and s only. Where a² + s² = σ'² the noise level after the step is the one that
the network is told next ("cps", "ou", and "ode" with s = 0); "flow_sde" and "dance_sde" leave
more, see docs/samplers.md.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from resonate_audio.core.errors import ConfigError, InputError
from resonate_audio.flow.times import uniform_grid

SamplerKind = Literal["ode", "flow_sde", "dance_sde", "cps", "ou"]


@dataclass(frozen=True)
class Gains:
    """How much old and new noise the state holds after one step, in float64."""

    noise: float
    """a: factor of the predicted noise ε̂."""
    std: float
    """s: standard deviation of the fresh noise."""


def step_gains(
    kind: SamplerKind, eta: float, level: float, next_level: float, level_at_one: float
) -> Gains:
    """Factors of old and new noise in the step from σ to σ'.

    | kind | a | s | source |
    |---|---|---|---|
    | ode | σ' | 0 | Euler |
    | flow_sde | σ' − g²(σ−σ')/2σ, g = η√(σ/(1−σ)) | g√(σ−σ') | Flow-GRPO, arXiv:2505.05470 |
    | dance_sde | the same with g = η | g√(σ−σ') | DanceGRPO, arXiv:2505.07818 |
    | cps | σ'·cos(ηπ/2) | σ'·sin(ηπ/2) | Flow-CPS, arXiv:2509.05952 |
    | ou | σ'κ, κ = [σ'(1−σ) / (σ(1−σ'))]^(η²/2) | σ'√(1−κ²) | Precise, arXiv:2605.23522 |

    The last one solves the Flow-SDE exactly while x̂0 stands still: e = (x − (1−σ)x̂0)/σ is then
    an Ornstein-Uhlenbeck process of unit variance, which keeps κ = exp(−∫g²/2u² du) of itself
    from σ to σ'. It forgets everything at σ = 1 (κ = 0) and adds nothing at σ' = 0 (s = 0).

    Args:
        kind: which sampler.
        eta: η, how noisy; not used by "ode".
        level: σ, noise level before the step, in (0, 1].
        next_level: σ', noise level after it, in [0, σ).
        level_at_one: stands for σ in the divisor 1−σ of "flow_sde" where σ = 1: the schedule's
            second level, as in the published code.
    """
    if kind == "cps":
        return Gains(
            next_level * math.cos(eta * math.pi / 2), next_level * math.sin(eta * math.pi / 2)
        )
    if kind == "ou":
        odds = next_level * (1 - level) / (level * (1 - next_level))
        kept = odds ** (eta**2 / 2)
        return Gains(next_level * kept, next_level * math.sqrt((1 - kept) * (1 + kept)))
    if kind == "ode":
        return Gains(next_level, 0.0)
    diffusion = eta
    if kind == "flow_sde":
        diffusion *= math.sqrt(level / (1 - (level_at_one if level == 1 else level)))
    length = level - next_level
    lost = diffusion**2 * length / (2 * level)
    return Gains(next_level - lost, diffusion * math.sqrt(length))


@dataclass(frozen=True)
class SDESchedule:
    """Noise levels and the factors of every step between them, looked up by step number.

    Computed in float64 from the float32 levels and rounded once, so that no step is ever found
    again from a noise level. Collecting terms of x and v, the mean of a step is

        μ = (1−σ')·x̂0 + a·ε̂ = [1 − σ' + a]·x + [a(1−σ) − σ(1−σ')]·v
    """

    kind: SamplerKind
    eta: float
    """η, how noisy; 0 for "ode"."""
    levels: Float32[Tensor, " time"]
    """``num_steps`` + 1 noise levels, falling."""
    noise_gain: Float32[Tensor, " step"]
    """a, factor of the predicted noise."""
    std: Float32[Tensor, " step"]
    """s, standard deviation of the fresh noise; 0 where a step has no density."""
    state_gain: Float32[Tensor, " step"]
    """Derivative of the mean by the state."""
    velocity_gain: Float32[Tensor, " step"]
    """Derivative of the mean by the velocity, below 0."""

    @property
    def num_steps(self) -> int:
        """Steps from the first level to the last."""
        return len(self.std)

    @property
    def jacobian(self) -> Float32[Tensor, " step"]:
        """J = |a(1−σ) − σ(1−σ')|: how far the mean moves for a change of the velocity."""
        return self.velocity_gain.abs()

    @property
    def has_density(self) -> Bool[Tensor, " step"]:
        """True for the steps that add noise; only those can be trained by their likelihood."""
        return self.std > 0

    def to(self, device: torch.device | str) -> SDESchedule:
        """The same tables on another device."""
        tables = (self.levels, self.noise_gain, self.std, self.state_gain, self.velocity_gain)
        return SDESchedule(self.kind, self.eta, *(table.to(device) for table in tables))

    def noisy_only_at(self, steps: Collection[int]) -> SDESchedule:
        """This schedule at the given steps and the ODE's Euler step at all others.

        [MixGRPO, arXiv:2507.21802: sampling is stochastic inside a window only]

        Raises:
            ConfigError: a step outside 0…``num_steps`` − 1.
        """
        wrong = sorted(step for step in steps if not 0 <= step < self.num_steps)
        if wrong:
            raise ConfigError(f"step {wrong[0]} is not one of 0…{self.num_steps - 1}")
        chosen = torch.zeros(self.num_steps, dtype=torch.bool, device=self.std.device)
        chosen[sorted(steps)] = True
        plain = make_schedule("ode", 0.0, self.levels.cpu()).to(self.std.device)
        return replace(
            self,
            noise_gain=torch.where(chosen, self.noise_gain, plain.noise_gain),
            std=torch.where(chosen, self.std, plain.std),
            state_gain=torch.where(chosen, self.state_gain, plain.state_gain),
            velocity_gain=torch.where(chosen, self.velocity_gain, plain.velocity_gain),
        )


def make_schedule(
    kind: SamplerKind, eta: float, steps: int | Sequence[float] | Float[Tensor, " time"]
) -> SDESchedule:
    """Lay out a sampler's steps.

    Args:
        kind: which sampler; ``step_gains`` lists them.
        eta: η, how noisy, above 0; for "cps" at most 1. "ode" takes none and ignores it.
        steps: number of equal steps from 1 to 0, or the noise levels themselves, falling.

    Raises:
        ConfigError: an unknown kind, an η out of range, less than one step, or levels that do
            not fall strictly within [0, 1].
    """
    eta = _checked_eta(kind, eta)
    levels = _checked_levels(steps)
    numbers = levels.tolist()
    gains = [step_gains(kind, eta, *pair, numbers[1]) for pair in pairwise(numbers)]
    state = [1 - after + gain.noise for gain, after in zip(gains, numbers[1:], strict=True)]
    velocity = [
        gain.noise * (1 - before) - before * (1 - after)
        for gain, (before, after) in zip(gains, pairwise(numbers), strict=True)
    ]
    return SDESchedule(
        kind=kind,
        eta=eta,
        levels=levels,
        noise_gain=torch.tensor([gain.noise for gain in gains], dtype=torch.float32),
        std=torch.tensor([gain.std for gain in gains], dtype=torch.float32),
        state_gain=torch.tensor(state, dtype=torch.float32),
        velocity_gain=torch.tensor(velocity, dtype=torch.float32),
    )


def _checked_eta(kind: SamplerKind, eta: float) -> float:
    if kind not in get_args(SamplerKind):
        raise ConfigError(f"sampler {kind!r}: expected one of {', '.join(get_args(SamplerKind))}")
    if kind == "ode":
        return 0.0
    limit = 1.0 if kind == "cps" else math.inf
    if not (0 < eta <= limit and math.isfinite(eta)):
        wanted = "above 0 and at most 1" if kind == "cps" else "above 0"
        raise ConfigError(f"eta {eta} for sampler {kind!r}: expected a number {wanted}")
    return float(eta)


def _checked_levels(
    steps: int | Sequence[float] | Float[Tensor, " time"],
) -> Float32[Tensor, " time"]:
    if isinstance(steps, int):
        if steps < 1:
            raise ConfigError(f"{steps} sampling steps: expected 1 or more")
        return uniform_grid(steps)
    levels = torch.as_tensor(steps).detach().cpu().float()
    if len(levels) < 2:
        raise ConfigError(f"{len(levels)} noise levels make no step: expected 2 or more")
    if not ((levels[1:] < levels[:-1]).all() and levels[0] <= 1 and levels[-1] >= 0):
        raise ConfigError(f"noise levels {levels.tolist()}: expected them to fall within [0, 1]")
    return levels


@dataclass(frozen=True)
class Transition:
    """One step of every row, all float32."""

    next_state: Float32[Tensor, "row frame channel"]
    mean: Float32[Tensor, "row frame channel"]
    """μ, with the gradient of the velocity."""
    std: Float32[Tensor, " row"]
    log_prob: Float32[Tensor, " row"]
    """Log-density of ``next_state``, the *mean* over frames and channels, in nats."""


def sde_step(
    z: Float[Tensor, "row frame channel"],
    velocity: Float[Tensor, "row frame channel"],
    index: Int[Tensor, " row"],
    schedule: SDESchedule,
    noise: Float[Tensor, "row frame channel"] | None = None,
    next_state: Float[Tensor, "row frame channel"] | None = None,
) -> Transition:
    """Sample a step, or replay one that was sampled before.

    x' = μ + s·z,    μ = (1−σ')·x̂0 + a·ε̂
    log p(x') = mean[−(x'−μ)²/2s² − ln s − ½ ln 2π]          [Flow-GRPO, arXiv:2505.05470]

    Sampling and replaying are the same arithmetic, so the same velocity gives the same
    log-density to the last bit, and a ratio of exactly 1.

    Differs from the paper: the log-density is the mean over dimensions, not the sum (as in all
    published code; ratios of sums overflow), so a ratio is the true one to the power 1/dimensions.

    Args:
        z: state at each row's noise level.
        velocity: v there.
        index: number of each row's step in the schedule; rows may differ.
        schedule: tables, on the device of ``z``.
        noise: standard normal; given it, the next state is μ + s·noise.
        next_state: state to replay; given neither, the next state is μ.

    Returns:
        The step in float32. Where s = 0 there is no density, and ``log_prob`` is 0.

    Raises:
        InputError: both ``noise`` and ``next_state``.
    """
    if noise is not None and next_state is not None:
        raise InputError("a step got noise and a next state: give noise to sample, or a state")
    std = schedule.std[index]
    state_gain, velocity_gain = schedule.state_gain[index], schedule.velocity_gain[index]
    mean = state_gain[:, None, None] * z.float() + velocity_gain[:, None, None] * velocity.float()
    if next_state is None:
        next_state = mean if noise is None else mean + std[:, None, None] * noise.float()
    next_state = next_state.detach().float()
    return Transition(next_state, mean, std, gaussian_log_prob(next_state, mean, std))


def gaussian_log_prob(
    x: Float[Tensor, "row frame channel"],
    mean: Float[Tensor, "row frame channel"],
    std: Float[Tensor, " row"],
) -> Float[Tensor, " row"]:
    """Log-density of N(mean, std²) at x, the mean over dimensions; 0 where std is 0."""
    safe = torch.where(std > 0, std, 1.0)
    squares = ((x - mean) / safe[:, None, None]).square().mean(dim=(1, 2))
    log_prob = -0.5 * squares - safe.log() - 0.5 * math.log(2 * math.pi)
    return torch.where(std > 0, log_prob, 0.0)
