"""Mean velocities: what a flow does between two noise levels, in one evaluation.

u(z_t, t, r) = 1/(t − r) · ∫_r^t v(z_s, s) ds, so z_r = z_t − (t − r)·u(z_t, t, r)
[MeanFlow, arXiv:2505.13447, eq. 3]; at r = t it is the velocity itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from resonate_audio.core.sampling import SolverSettings
from resonate_audio.flow.guidance import Joinable, guided
from resonate_audio.flow.ode import integrate, make_step
from resonate_audio.flow.path import Velocity
from resonate_audio.flow.times import grid_of

MeanVelocity = Callable[
    [Float[Tensor, "row ..."], Float[Tensor, " row"], Float[Tensor, " row"]],
    Float[Tensor, "row ..."],
]
"""u(z, t, r) with r ≤ t, conditions bound."""


def in_steps(mean_velocity: MeanVelocity, times: Float[Tensor, " time"]) -> Velocity:
    """The velocity that carries each of some noise levels to the next in one Euler step.

    v(z, t) = u(z, t, r), r the highest of ``times`` below t; at the lowest one, r = t.

    Args:
        mean_velocity: the model, conditions bound.
        times: the levels that a solver will visit, in any order.
    """
    rising = times.sort().values

    def velocity(z: Float[Tensor, "row ..."], t: Float[Tensor, " row"]) -> Float[Tensor, "row ..."]:
        return mean_velocity(z, t, level_below(t, rising))

    return velocity


def level_below(t: Float[Tensor, " row"], rising: Float[Tensor, " time"]) -> Float[Tensor, " row"]:
    """The highest of some rising noise levels below each t; where there is none, t itself."""
    levels = rising.to(t)
    below = (torch.searchsorted(levels, t.contiguous()) - 1).clamp(min=0)
    return torch.minimum(levels[below], t)


def sampling_velocity(
    network: Callable[..., Tensor],
    prompt: Joinable,
    empty: Joinable | None,
    settings: SolverSettings,
    is_mean: bool,
    times: Float[Tensor, " time"] | None = None,
    both_at_one: bool = False,
) -> Velocity:
    """What a solver follows: guided velocities, or mean ones, which have guidance inside.

    Args:
        network: of (z, t, conditions), and with ``is_mean`` of (z, t, conditions, r).
        prompt: conditions, one per row.
        empty: conditions of no prompt, where `guided` needs them.
        settings: number of steps, their shift, and guidance.
        is_mean: whether the network predicts mean velocities.
        times: noise levels of the solver; those of ``settings`` if None.
        both_at_one: as of `guided`.
    """
    if not is_mean:
        scale, interval = settings.guidance_scale, settings.guidance_interval
        return guided(network, prompt, empty, scale, both_at_one, interval)
    levels = grid_of(settings) if times is None else times
    return in_steps(lambda z, t, r: network(z, t, prompt, r), levels)


# --- training from data: MeanFlow ----------------------------------------------------------------


def two_times(
    normals: Float[Tensor, "2 row"], uniform: Float[Tensor, " row"], share_equal: float,
    mean: float, std: float,
) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"]]:  # fmt: skip
    """Two noise levels a row, the larger first; some rows get the larger one twice.

    sigmoid(mean + std·n) of two normals          [arXiv:2505.13447, sec. 4.3]

    Args:
        normals: standard normals.
        uniform: in [0, 1), says which rows have equal times.
        share_equal: share of rows with r = t.
        mean: of the normals' logits.
        std: of the normals' logits.
    """
    levels = torch.sigmoid(mean + std * normals)
    t, r = levels.amax(0), levels.amin(0)
    return t, torch.where(uniform < share_equal, t, r)


def guided_target(
    velocity: Float[Tensor, "row ..."],
    with_prompt: Float[Tensor, "row ..."],
    without: Float[Tensor, "row ..."],
    data_share: float,
    prompt_share: float,
) -> Float[Tensor, "row ..."]:
    """Put guidance into what is learnt: a mixture of three velocities at (z, t).

    w·v + k·u(z, t, t | prompt) + (1 − w − k)·u(z, t, t | empty)
    [arXiv:2505.13447, sec. 4.2 and app. B.1: the field followed is that of scale w/(1 − k)]

    Args:
        velocity: v, noise − data.
        with_prompt: the network's own velocity at t with the prompt.
        without: its velocity at t without one.
        data_share: w.
        prompt_share: k.
    """
    rest = 1 - data_share - prompt_share
    return data_share * velocity + prompt_share * with_prompt + rest * without


def mean_flow_target(
    bind: Callable[[Int[Tensor, " part"]], MeanVelocity],
    z: Float[Tensor, "row frame channel"],
    t: Float[Tensor, " row"],
    r: Float[Tensor, " row"],
    velocity: Float[Tensor, "row frame channel"],
) -> Float[Tensor, "row frame channel"]:
    """What the mean velocity should be, by its own slope: v̂ − (t − r)·du/dt.

    du/dt is the product of the Jacobian with (v̂, 0, 1) for (z, r, t), in forward mode
    [arXiv:2505.13447, eq. 6 and 8]. Rows with r = t do not need it and are left out of it.

    Args:
        bind: the network with the conditions of some of the rows.
        z: states at t.
        t: noise levels.
        r: noise levels that the mean velocities lead to.
        velocity: v̂, the velocity at (z, t) that is to be followed.

    Returns:
        The target, without gradient.
    """
    part = (r < t).nonzero().flatten()
    target = velocity.detach().clone()
    if not len(part):
        return target
    points = z[part], r[part], t[part]
    along = velocity[part], torch.zeros_like(points[1]), torch.ones_like(points[2])
    # Fused attention and layers in products have no forward mode; a derivative wants the digits.
    exact = torch.autocast(z.device.type, enabled=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), exact:
        mean_velocity = bind(part)
        change = torch.func.jvp(lambda z, r, t: mean_velocity(z, t, r), points, along)[1]
    target[part] -= (t - r)[part, None, None] * change
    return target


def adaptive_rows(
    squares: Float[Tensor, " row"], offset: float = 1e-3
) -> Float[Tensor, " row"]:  # fmt: skip
    """Weigh each row's squared error by its own size: e / sg(e + c).

    [arXiv:2505.13447, sec. 4.3, with p = 1]
    """
    return squares / (squares.detach() + offset)


# --- training from a teacher: its own guided way ------------------------------------------------


@torch.no_grad()
def follow(
    velocity: Velocity,
    z: Float[Tensor, "row frame channel"],
    t: Float[Tensor, " row"],
    r: Float[Tensor, " row"],
    num_steps: int,
) -> Float[Tensor, "row frame channel"]:
    """Solve each row from its own t down to its own r in equal steps, of order 2.

    In s from 0 to 1, the same for all rows: dz/ds = (r − t)·v(z, t + s·(r − t)), by `ode`'s
    two-step rule with one evaluation a step.
    """
    stretch = r - t

    def slope(z: Float[Tensor, "row frame channel"], s: Float[Tensor, " row"]) -> Tensor:
        return stretch[:, None, None] * velocity(z, t + s * stretch).to(z)

    return integrate(slope, z, torch.linspace(0, 1, num_steps + 1), step=make_step("ab2"))
