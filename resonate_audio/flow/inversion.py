"""From data back to the noise that the ODE would have made it from."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from resonate_audio.flow.ode import OnStep, integrate
from resonate_audio.flow.path import Velocity


def invert(
    velocity: Velocity,
    data: Float[Tensor, "row ..."],
    times: Float[Tensor, " time"],
    num_refinements: int = 0,
    on_step: OnStep | None = None,
) -> Float[Tensor, "row ..."]:
    """Find the noise from which Euler steps along ``times`` lead to ``data``.

    A step from s up to t has to satisfy z_s = z_t + (s − t)·v(z_t, t), so

        z_t = z_s + (t − s)·v(z_t, t)

    The first guess takes the slope at (z_s, t), each refinement puts its own result back into the
    right side; it converges where (t − s)·∂v/∂z is below 1   [fixed-point inversion,
    arXiv:2312.12540; ReNoise, arXiv:2403.14602]. ``integrate`` along the same times then
    gives the data back, up to what the last refinement still changed.

    Args:
        velocity: v(z, t), as it will be used on the way back.
        data: state at times[-1].
        times: noise levels of the way back, falling; they are visited from last to first.
        num_refinements: evaluations of each step beyond the first.
        on_step: told of every step; returning False stops.

    Returns:
        State at times[0]; at noise level 1, noise.

    Raises:
        Cancelled: ``on_step`` returned False.
    """

    def step(
        velocity: Velocity,
        z: Float[Tensor, "row ..."],
        t: Float[Tensor, ""],
        t_next: Float[Tensor, ""],
    ) -> Float[Tensor, "row ..."]:
        higher = z
        for _ in range(1 + num_refinements):
            higher = z + (t_next - t) * velocity(higher, t_next.expand(len(z)))
        return higher

    return integrate(velocity, data, times.flip(0), on_step, step)
