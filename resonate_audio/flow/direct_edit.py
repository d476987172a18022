"""Editing along the difference of two velocities, without a way through noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.flow.ode import OnStep, Step, euler_step, integrate
from resonate_audio.flow.path import Velocity, noised


def edit_directly(
    of_source: Velocity,
    of_target: Velocity,
    source: Float[Tensor, "row frame channel"],
    draw_noise: Callable[[], Float[Tensor, "row frame channel"]],
    times: Float[Tensor, " time"],
    num_draws: int = 1,
    on_step: OnStep | None = None,
    step: Step = euler_step,
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
        num_draws: noises averaged at each evaluation.
        on_step: told of every step; returning False stops.
        step: the rule of one step, as ``make_step`` gives it.

    Raises:
        Cancelled: ``on_step`` returned False.
    """

    def slope(moved: Tensor, t: Tensor) -> Tensor:
        slopes = []
        for _ in range(num_draws):
            x_t = noised(source, draw_noise(), t)
            slopes.append(of_target(x_t + moved, t) - of_source(x_t, t))
        return torch.stack(slopes).mean(dim=0)

    return source + integrate(slope, torch.zeros_like(source), times, on_step, step)
