"""The mean velocity of a flow from noise to a normal distribution is known in closed form."""

import pytest
import torch
from torch import Tensor

from resonate_audio.core.sampling import SolverSettings
from resonate_audio.flow.mean_flow import (
    MeanVelocity,
    adaptive_rows,
    follow,
    guided_target,
    in_steps,
    mean_flow_target,
    two_times,
)
from resonate_audio.flow.ode import solve

MEAN, STD = 1.5, 0.4
ROWS = 5


def of_path(t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation at t when data ~ N(1.5, 0.4²)."""
    t = t[:, None, None]
    return (1 - t) * MEAN, ((1 - t) ** 2 * STD**2 + t**2).sqrt()


def carried(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """The flow keeps each value's place in the distribution: z_r = m_r + s_r/s_t·(z_t − m_t)."""
    (mean, std), (mean_r, std_r) = of_path(t), of_path(r)
    return mean_r + std_r / std * (z - mean)


def velocity(z: Tensor, t: Tensor) -> Tensor:
    mean, std = of_path(t)
    level = t[:, None, None]
    return (level - (1 - level) * STD**2) / std**2 * (z - mean) - MEAN


def mean_velocity(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
    length = (t - r)[:, None, None]
    mean = (z - carried(z, t, r)) / torch.where(length > 0, length, 1.0)
    return torch.where(length > 0, mean, velocity(z, t))


def drawn(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(ROWS, 3, 2, generator=generator, dtype=torch.float64)
    levels = torch.rand(2, ROWS, generator=generator, dtype=torch.float64)
    return z, levels.amax(0), levels.amin(0)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 25])
def test_any_number_of_steps_lands_where_the_flow_does(num_steps: int) -> None:
    z, _, _ = drawn()
    ones = torch.ones(ROWS, dtype=z.dtype)
    times = torch.linspace(1, 0, num_steps + 1)
    settings = SolverSettings(num_inference_steps=num_steps)
    made = solve(in_steps(mean_velocity, times), z, settings)
    torch.testing.assert_close(made, carried(z, ones, 0 * ones), atol=1e-6, rtol=1e-6)


def test_each_level_leads_to_the_next_one_below_and_the_lowest_to_itself() -> None:
    asked = []

    def told(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        asked.append((round(float(t[0]), 6), round(float(r[0]), 6)))
        return z

    stepping = in_steps(told, torch.tensor([0.8, 0.5, 0.0]))
    for level in (0.8, 0.5, 0.0):
        stepping(torch.zeros(1, 1, 1), torch.tensor([level]))
    assert asked == [(0.8, 0.5), (0.5, 0.0), (0.0, 0.0)]


def test_the_exact_mean_velocity_is_its_own_target() -> None:
    z, t, r = drawn()
    r[1] = t[1]

    def bind(part: Tensor) -> MeanVelocity:
        assert 1 not in part.tolist()
        return mean_velocity

    target = mean_flow_target(bind, z, t, r, velocity(z, t))
    torch.testing.assert_close(target, mean_velocity(z, t, r))


def test_where_all_times_are_equal_the_target_is_the_velocity_and_nothing_is_derived() -> None:
    z, t, _ = drawn()

    def never(part: Tensor) -> MeanVelocity:
        raise AssertionError(part)

    assert torch.equal(mean_flow_target(never, z, t, t, z), z)


def test_following_the_flow_is_of_second_order() -> None:
    z, t, r = drawn()
    expected = mean_velocity(z, t, r)
    errors = []
    for num_steps in (16, 32):
        end = follow(velocity, z, t, r, num_steps)
        mean = (z - end) / (t - r)[:, None, None]
        errors.append((mean - expected)[r < t].abs().max().item())
        torch.testing.assert_close(end[r == t], z[r == t])
    assert errors[1] < errors[0] / 3
    assert errors[1] < 3e-3


def test_guidance_in_the_target_is_a_mixture_whose_weights_add_up_to_one() -> None:
    data, heard, empty = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([4.0])
    got = guided_target(data, heard, empty, 0.3, 0.9)
    torch.testing.assert_close(got, torch.tensor([0.3 * 1 + 0.9 * 2 - 0.2 * 4]))
    assert torch.equal(guided_target(data, heard, empty, 1.0, 0.0), data)
    torch.testing.assert_close(guided_target(heard, heard, heard, 0.3, 0.9), heard)


def test_two_times_are_in_order_and_so_many_are_equal() -> None:
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(2, 4000, generator=generator)
    t, r = two_times(normals, torch.rand(4000, generator=generator), 0.75, -0.4, 1.0)
    assert (r <= t).all()
    assert (r == t).double().mean().item() == pytest.approx(0.75, abs=0.03)
    assert t.max() < 1
    assert t.logit().mean() > -0.4 > r[r < t].logit().mean()


def test_a_row_weighs_the_same_whatever_its_error() -> None:
    squares = torch.tensor([1e-1, 1e3], requires_grad=True)
    adaptive_rows(squares).sum().backward()
    torch.testing.assert_close(squares.grad, 1 / (squares.detach() + 1e-3))
