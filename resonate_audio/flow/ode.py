"""Solvers of dz/dt = v(z, t) along a given list of noise levels."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.errors import Cancelled
from resonate_audio.core.sampling import SolverName, SolverSettings
from resonate_audio.flow.path import Velocity
from resonate_audio.flow.times import grid_of

OnStep = Callable[[int, int], bool | None]
"""Called with (steps done, steps in all); returning False stops the solver."""

Step = Callable[[Velocity, Tensor, Tensor, Tensor], Tensor]
"""(velocity, z, t, next t) → next z."""


def euler_step(
    velocity: Velocity, z: Float[Tensor, "row ..."], t: Float[Tensor, ""], t_next: Float[Tensor, ""]
) -> Float[Tensor, "row ..."]:
    """Go along the slope at t: z + Δt·v(z, t); order 1."""
    return z + (t_next - t) * velocity(z, t.expand(len(z)))


def heun_step(
    velocity: Velocity, z: Float[Tensor, "row ..."], t: Float[Tensor, ""], t_next: Float[Tensor, ""]
) -> Float[Tensor, "row ..."]:
    """Go along the mean of two slopes: z + Δt·(v(z, t) + v(z', t'))/2, z' by Euler; order 2."""
    slope = velocity(z, t.expand(len(z)))
    ahead = velocity(z + (t_next - t) * slope, t_next.expand(len(z)))
    return z + (t_next - t) * (slope + ahead) / 2


def midpoint_step(
    velocity: Velocity, z: Float[Tensor, "row ..."], t: Float[Tensor, ""], t_next: Float[Tensor, ""]
) -> Float[Tensor, "row ..."]:
    """Go along the slope half-way: z + Δt·v(z + Δt/2·v(z, t), t + Δt/2); order 2."""
    halfway = (t + t_next) / 2
    ahead = z + (halfway - t) * velocity(z, t.expand(len(z)))
    return z + (t_next - t) * velocity(ahead, halfway.expand(len(z)))


def adams_bashforth_2() -> Step:
    """A rule that remembers the slope of the step before; order 2 at one evaluation a step.

    z + Δt·((1 + r/2)·v_n − r/2·v_{n−1}), r = Δt/Δt_{n−1}; the first step is Euler's
    [Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, sec. III.5].

    Returns:
        A rule for one solution, whose steps follow each other.
    """
    past: tuple[Tensor, Tensor] | None = None

    def step(velocity: Velocity, z: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        nonlocal past
        slope, length = velocity(z, t.expand(len(z))), t_next - t
        mean = slope
        if past is not None:
            slope_before, length_before = past
            ratio = length / length_before
            mean = (1 + ratio / 2) * slope - ratio / 2 * slope_before
        past = (slope, length)
        return z + length * mean

    return step


def make_step(solver: SolverName) -> Step:
    """The rule of a solver by its name, fresh for one solution."""
    if solver == "ab2":
        return adams_bashforth_2()
    return {"euler": euler_step, "heun": heun_step, "midpoint": midpoint_step}[solver]


def integrate(
    velocity: Velocity,
    z: Float[Tensor, "row ..."],
    times: Float[Tensor, " time"],
    on_step: OnStep | None = None,
    step: Step = euler_step,
) -> Float[Tensor, "row ..."]:
    """Carry z from times[0] to times[-1], one step between neighbours, in either direction.

    Args:
        velocity: v(z, t) with t one noise level per row.
        z: the state at times[0].
        times: noise levels in the order in which they are visited.
        on_step: told of every step done; returning False stops.
        step: the rule of one step, as ``make_step`` gives it.

    Raises:
        Cancelled: ``on_step`` returned False.
    """
    times = times.to(z.device)
    num_steps = len(times) - 1
    for index in range(num_steps):
        z = step(velocity, z, times[index], times[index + 1])
        if on_step is not None and on_step(index + 1, num_steps) is False:
            raise Cancelled(f"stopped after step {index + 1} of {num_steps}")
    return z


def solve(
    velocity: Velocity,
    noise: Float[Tensor, "row ..."],
    settings: SolverSettings,
    on_step: OnStep | None = None,
) -> Float[Tensor, "row ..."]:
    """Carry noise to data as the settings say: the one place where they meet the solver.

    Raises:
        Cancelled: ``on_step`` returned False.
    """
    times = grid_of(settings)
    return integrate(velocity, noise, times, on_step, make_step(settings.solver))
