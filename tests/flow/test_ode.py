import math
from typing import get_args

import pytest
import torch

from resonate_audio.core.errors import Cancelled
from resonate_audio.core.sampling import SolverName, SolverSettings
from resonate_audio.flow.ode import Step, euler_step, heun_step, integrate, make_step, solve
from resonate_audio.flow.times import uniform_grid

Z = torch.tensor([[[1.5, -2.0]], [[0.25, 3.0]]], dtype=torch.float64)


def growth(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return z


def test_a_constant_velocity_is_solved_exactly_in_one_step() -> None:
    end = integrate(lambda z, t: torch.full_like(z, 3.0), Z, uniform_grid(1))
    torch.testing.assert_close(end, Z - 3.0)


def test_straight_paths_reach_the_data_in_any_number_of_steps() -> None:
    noise = Z + 7.0
    for num_steps in (1, 2, 25):
        end = integrate(lambda z, t: noise - Z, noise, uniform_grid(num_steps))
        torch.testing.assert_close(end, Z)


def test_euler_on_a_linear_velocity_is_compound_interest() -> None:
    end = integrate(growth, Z, uniform_grid(8).double())
    torch.testing.assert_close(end, Z * (1 - 1 / 8) ** 8)


def test_heun_integrates_a_velocity_linear_in_time_exactly() -> None:
    end = integrate(lambda z, t: t[:, None, None] + 0 * z, Z, uniform_grid(4), step=heun_step)
    torch.testing.assert_close(end, Z - 0.5)


def gaussian_velocity(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Exact velocity when data ~ N(3, 0.5²): z_t ~ N(3(1-t), (1-t)²/4 + t²)."""
    level = t[:, None, None].double()
    variance = (1 - level).square() / 4 + level.square()
    slope = (level - (1 - level) / 4) / variance
    return slope * (z - 3 * (1 - level)) - 3


def test_gaussian_noise_is_carried_to_the_gaussian_of_the_data() -> None:
    end = integrate(gaussian_velocity, Z, uniform_grid(2000).double())
    torch.testing.assert_close(end, 3 + Z / 2, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("step", "order"), [(euler_step, 1), (heun_step, 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(step: Step, order: int) -> None:
    errors = [
        (integrate(gaussian_velocity, Z, uniform_grid(n).double(), step=step) - (3 + Z / 2)).abs()
        for n in (200, 400)
    ]
    observed = math.log2(errors[0].max().item() / errors[1].max().item())
    assert observed == pytest.approx(order, abs=0.1)


def test_forward_then_back_returns_to_the_start() -> None:
    times = uniform_grid(500).double()
    there = integrate(growth, Z, times, step=heun_step)
    back = integrate(growth, there, times.flip(0), step=heun_step)
    torch.testing.assert_close(back, Z, atol=1e-5, rtol=0)


def test_rows_share_the_noise_level_of_the_step() -> None:
    seen: list[list[float]] = []

    def velocity(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t.tolist())
        return z

    integrate(velocity, Z, uniform_grid(2))
    assert seen == [[1.0, 1.0], [0.5, 0.5]]


def test_every_step_is_reported() -> None:
    seen: list[tuple[int, int]] = []
    integrate(growth, Z, uniform_grid(3), on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_callback_that_returns_false_cancels_before_the_next_step() -> None:
    evaluations: list[float] = []

    def velocity(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        evaluations.append(t[0].item())
        return z

    with pytest.raises(Cancelled, match="step 2 of 10"):
        integrate(velocity, Z, uniform_grid(10), on_step=lambda done, total: done < 2)
    assert len(evaluations) == 2


def test_the_start_is_left_as_it_was() -> None:
    start = Z.clone()
    integrate(growth, start, uniform_grid(3))
    torch.testing.assert_close(start, Z)


def curved(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Solved by z(t) = z(1)·exp(t + t³/3 − 4/3); a solver gains no order by symmetry."""
    return (1 + t.square())[:, None, None] * z


CURVED_END = Z * math.exp(-4 / 3)
ORDERS = {"euler": (1, 1), "heun": (2, 2), "midpoint": (2, 2), "ab2": (2, 1)}
"""Order, and evaluations a step, of every solver."""


def test_every_solver_has_its_order_stated_here() -> None:
    assert set(ORDERS) == set(get_args(SolverName))


@pytest.mark.parametrize("name", ORDERS)
def test_a_solver_converges_with_its_order(name: SolverName) -> None:
    errors = [
        (integrate(curved, Z, grid.double(), step=make_step(name)) - CURVED_END).abs()
        for grid in (uniform_grid(200), uniform_grid(400))
    ]
    observed = math.log2(errors[0].max().item() / errors[1].max().item())
    assert observed == pytest.approx(ORDERS[name][0], abs=0.1)


@pytest.mark.parametrize("name", ORDERS)
def test_a_solver_has_its_order_on_steps_of_unequal_length_too(name: SolverName) -> None:
    grids = [torch.linspace(1, 0, n + 1, dtype=torch.float64) ** 1.5 for n in (200, 400)]
    errors = [
        (integrate(curved, Z, grid, step=make_step(name)) - CURVED_END).abs().max()
        for grid in grids
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[name][0], abs=0.15)


@pytest.mark.parametrize("name", ORDERS)
def test_a_solver_evaluates_the_velocity_as_often_as_stated(name: SolverName) -> None:
    times: list[float] = []

    def velocity(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        times.append(t[0].item())
        return z

    solve(velocity, Z, SolverSettings(num_inference_steps=6, solver=name))
    assert len(times) == 6 * ORDERS[name][1]


def test_adams_bashforth_is_the_closed_form_on_growth() -> None:
    end = integrate(growth, Z, uniform_grid(3).double(), step=make_step("ab2"))
    h = -1 / 3
    first = 1 + h
    second = first + h * (1.5 * first - 0.5)
    third = second + h * (1.5 * second - 0.5 * first)
    torch.testing.assert_close(end, Z * third)


def test_a_solver_that_remembers_starts_afresh_each_time() -> None:
    settings = SolverSettings(num_inference_steps=3, solver="ab2")
    first, second = solve(growth, Z, settings), solve(growth, Z, settings)
    assert torch.equal(first, second)
