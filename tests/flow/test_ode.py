import math

import pytest
import torch

from resonate_audio.core.errors import Cancelled
from resonate_audio.flow.ode import Step, euler_step, heun_step, integrate
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
