"""How much noise does each stochastic sampler leave, and how far off is its spread?

    python benchmarks/sampler_noise.py [--shift 1] [--picture docs/images/sampler-noise.png]

The data are one-dimensional and Gaussian, N(0.5, 0.3²), so the exact velocity is linear, every step
is linear in the state, and the spread of the samples follows by arithmetic: nothing is sampled and
no network is involved. "left" is the standard deviation of the noise in the final sample, of which
there should be none; "spread" should be 0.300. ``--shift s`` spaces the levels as
s·u/(1+(s−1)·u), which takes longer steps at the end.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from resonate_audio.flow.sde import SamplerKind, step_gains

SPREAD = 0.3
STEPS = (10, 25, 50, 100)
SAMPLERS: tuple[tuple[SamplerKind, float], ...] = (
    ("ode", 0.0),
    ("flow_sde", 0.7),
    ("dance_sde", 0.3),
    ("cps", 0.8),
    ("ou", 0.7),
    ("ou", 1.5),
)
COLOURS = ("#555555", "#c0392b", "#e08e2b", "#7d5ba6", "#1f77b4", "#63b3de")


@dataclass(frozen=True)
class Moments:
    """What a sampler's steps do to Gaussian data."""

    spread: float
    """Standard deviation of the samples."""
    excess: tuple[float, ...]
    """After each step: the noise level that is there minus the one the network is told."""


def noise_levels(num_steps: int, shift: float) -> list[float]:
    """Levels from 1 to 0."""
    even = [1 - step / num_steps for step in range(num_steps)] + [0.0]
    return [shift * u / (1 + (shift - 1) * u) for u in even]


def propagate(kind: SamplerKind, eta: float, levels: list[float]) -> Moments:
    """Carry the variance through every step with the exact velocity.

    E[x̂0|x] = m + w·(x − (1−σ)m) with w = (1−σ)d²/((1−σ)²d² + σ²), so x' = slope·x + constant + s·z.
    """
    variance, excess = 1.0, []
    for level, after in pairwise(levels):
        gains = step_gains(kind, eta, level, after, levels[1])
        weight = (1 - level) * SPREAD**2 / ((1 - level) ** 2 * SPREAD**2 + level**2)
        slope = (1 - after) * weight + gains.noise * (1 - (1 - level) * weight) / level
        variance = slope**2 * variance + gains.std**2
        excess.append(math.hypot(gains.noise, gains.std) - after)
    return Moments(math.sqrt(variance), tuple(excess))


def table(shift: float) -> str:
    """One line a sampler, in Markdown."""
    heads = " | ".join(f"{steps} steps: spread | left" for steps in STEPS)
    lines = [f"| sampler | η | {heads} |", "|---|---:|" + "---:|---:|" * len(STEPS)]
    for kind, eta in SAMPLERS:
        moments = [propagate(kind, eta, noise_levels(steps, shift)) for steps in STEPS]
        cells = " | ".join(f"{m.spread:.3f} | {abs(m.excess[-1]):.4f}" for m in moments)
        lines.append(f"| {kind} | {f'{eta:g}' if eta else ''} | {cells} |")
    return "\n".join(lines)


def draw(path: Path, shift: float) -> None:
    """Excess noise along ten steps, and the final spread by the number of steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    many = [round(10 * 1.25**power) for power in range(21)]
    levels = noise_levels(10, shift)
    for (kind, eta), colour in zip(SAMPLERS, COLOURS, strict=True):
        name = f"{kind} {eta:g}" if eta else kind
        excess = propagate(kind, eta, levels).excess
        left.plot(levels[1:], excess, "o-", color=colour, label=name, markersize=3.5)
        spreads = [propagate(kind, eta, noise_levels(steps, shift)).spread for steps in many]
        right.plot(many, spreads, color=colour, label=name)
    left.set(xlabel="noise level after the step", ylabel="excess noise")
    left.set_title("10 steps: noise beyond what the network is told", fontsize=10)
    left.invert_xaxis()
    left.annotate("ode, cps, ou: none", (0.93, 0.006), fontsize=8)
    right.axhline(SPREAD, color="black", linewidth=0.8, linestyle=":")
    right.set(xscale="log", xlabel="steps", ylabel="spread of the samples")
    right.set_title("Spread, true value dotted", fontsize=10)
    figure.legend(*right.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main(arguments: list[str] | None = None) -> None:
    """Print the table, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shift", type=float, default=1.0)
    parser.add_argument("--picture", type=Path, default=Path("docs/images/sampler-noise.png"))
    options = parser.parse_args(arguments)
    print(table(options.shift))
    draw(options.picture, options.shift)


if __name__ == "__main__":
    main()
