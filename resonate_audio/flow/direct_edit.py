"""Editing along the difference of two velocities, without a way through noise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.errors import Cancelled
from resonate_audio.flow.ode import OnStep
from resonate_audio.flow.path import Velocity, noised


def edit_directly(
    of_source: Velocity,
    of_target: Velocity,
    source: Float[Tensor, "row frame channel"],
    draw_noise: Callable[[], Float[Tensor, "row frame channel"]],
    times: Float[Tensor, " time"],
    num_draws: int = 1,
    on_step: OnStep | None = None,
) -> Float[Tensor, "row frame channel"]:
    """Carry a sound from what one prompt describes to what another does.

    dz/dt = E[ v_target(x_t + z − x, t) − v_source(x_t, t) ],   x_t = (1 − t)·x + t·noise
    [FlowEdit, arXiv:2412.08629, alg. 1]

    z starts at the source x and never is noise, so what both prompts agree on stays. Equal
    velocities leave it as it is, to the bit.

    Args:
        of_source: velocity under what the source is.
        of_target: velocity under what it shall be.
        source: x, data.
        draw_noise: fresh standard normals, the shape of ``source``.
        times: noise levels, falling to 0; the higher the first, the more may change.
        num_draws: noises averaged at each step.
        on_step: told of every step; returning False stops.

    Raises:
        Cancelled: ``on_step`` returned False.
    """
    moved, num_steps = torch.zeros_like(source), len(times) - 1
    for done, (level, lower) in enumerate(pairwise(times.tolist()), start=1):
        t = source.new_full((len(source),), level)
        slopes = []
        for _ in range(num_draws):
            x_t = noised(source, draw_noise(), t)
            slopes.append(of_target(x_t + moved, t) - of_source(x_t, t))
        moved = moved + (lower - level) * torch.stack(slopes).mean(dim=0)
        if on_step is not None and on_step(done, num_steps) is False:
            raise Cancelled(f"stopped after step {done} of {num_steps}")
    return source + moved
