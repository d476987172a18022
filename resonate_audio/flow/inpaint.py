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
    repeat_above: float = 0.0,
    on_step: OnStep | None = None,
    make_rule: Callable[[], Step] = lambda: euler_step,
) -> Float[Tensor, "row frame channel"]:
    """Fill frames so that they fit those that are known.

    Before every step the known frames are put back at its noise level, z_t = (1 − t)·known +
    t·noise, so that the free ones are solved beside them. What a step made did not know what it
    would meet; so it is noised back to where it began and made again, ``num_rounds`` times in all,
    which lets free and known frames agree          [RePaint, arXiv:2201.09865, alg. 1].

    Differs from the paper: the noise of the known frames is drawn anew for a repetition only, so
    that between them they go along the straight path that the velocity was trained on; steps are
    those of the ODE; below ``repeat_above`` the shape is settled and nothing is repeated.

    Args:
        velocity: v(z, t).
        known: data, anything where ``is_free``.
        is_free: true for the frames to fill.
        draw_noise: fresh standard normals, the shape of ``known``.
        times: noise levels, falling to 0.
        num_rounds: times that a step is made; one from pure noise is made once.
        repeat_above: noise level above which a step has to begin to be repeated.
        on_step: told of every step; returning False stops.
        make_rule: makes the rule of one step, fresh where steps no longer follow each other.

    Returns:
        ``known``, to the bit, with its free frames filled.

    Raises:
        Cancelled: ``on_step`` returned False.
    """
    free = is_free.to(known.device)[:, None]
    levels = times.tolist()
    stretches = plan_stretches(levels, num_rounds, repeat_above)
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


def plan_stretches(levels: list[float], num_rounds: int, repeat_above: float) -> list[list[float]]:
    """The noise levels of each stretch of steps without a jump, in order, repetitions included."""
    stretches: list[list[float]] = []
    for number, pair in enumerate(pairwise(levels)):
        if num_rounds == 1 or pair[0] <= repeat_above:
            return [*stretches, levels[number:]]
        # From pure noise a second round would forget the first.
        stretches += [list(pair)] * (1 if pair[0] == 1 else num_rounds)
    return stretches
