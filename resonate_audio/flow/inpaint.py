"""Solving for a part of a sound whose rest is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from resonate_audio.core.errors import Cancelled
from resonate_audio.flow.ode import OnStep, Step, euler_step
from resonate_audio.flow.path import Velocity, noised, renoised


def solve_masked(
    velocity: Velocity,
    known: Float[Tensor, "row frame channel"],
    is_free: Bool[Tensor, " frame"],
    draw_noise: Callable[[], Float[Tensor, "row frame channel"]],
    times: Float[Tensor, " time"],
    num_rounds: int = 1,
    jump_steps: int = 1,
    on_step: OnStep | None = None,
    make_rule: Callable[[], Step] = lambda: euler_step,
) -> Float[Tensor, "row frame channel"]:
    """Fill frames so that they fit those that are known.

    Before every step the known frames are put back at its noise level, z_t = (1 − t)·known +
    t·noise, so that the free ones are solved beside them. What was solved a few steps earlier did
    not know what it would meet; so every stretch of ``jump_steps`` steps is noised back to its
    beginning and solved again, ``num_rounds`` times in all, which lets free and known frames
    agree          [RePaint, arXiv:2201.09865, alg. 1].

    Differs from the paper: the noise of the known frames stays the same within a stretch, where
    it lies on the straight path that the velocity was trained on; steps are those of the ODE.

    Args:
        velocity: v(z, t).
        known: data, anything where ``is_free``.
        is_free: true for the frames to fill.
        draw_noise: fresh standard normals, the shape of ``known``.
        times: noise levels, falling to 0.
        num_rounds: times that each stretch is solved; the first, from pure noise, needs one.
        jump_steps: steps of a stretch.
        on_step: told of every step; returning False stops.
        make_rule: makes the rule of one step, fresh for each stretch.

    Returns:
        ``known``, to the bit, with its free frames filled.

    Raises:
        Cancelled: ``on_step`` returned False.
    """
    free = is_free.to(known.device)[:, None]
    levels = times.tolist()
    stretches = plan_stretches(levels, num_rounds, jump_steps)
    noise = draw_noise()
    z, done = noised(known, noise, times[:1].to(known).expand(len(known))), 0
    num_steps = sum(len(stretch) - 1 for stretch in stretches)
    for index, stretch in enumerate(stretches):
        if index and stretch[0] > stretches[index - 1][-1]:
            noise = draw_noise()
            z = renoised(z, noise, stretches[index - 1][-1], stretch[0])
        step = make_rule()
        for level, lower in pairwise(stretch):
            t, t_next = known.new_tensor(level), known.new_tensor(lower)
            z = torch.where(free, z, noised(known, noise, t.expand(len(z))))
            z = step(velocity, z, t, t_next)
            done += 1
            if on_step is not None and on_step(done, num_steps) is False:
                raise Cancelled(f"stopped after step {done} of {num_steps}")
    return torch.where(free, z, known)


def plan_stretches(levels: list[float], num_rounds: int, jump_steps: int) -> list[list[float]]:
    """The noise levels of each stretch that is solved, repeated ones included, in order."""
    stretches = []
    for start in range(0, len(levels) - 1, jump_steps):
        stretch = levels[start : start + jump_steps + 1]
        # From pure noise a second round would forget the first.
        stretches += [stretch] * (1 if stretch[0] == 1 else num_rounds)
    return stretches
