import math

import pytest
import torch

from resonate_audio.core.errors import InputError
from resonate_audio.core.sampling import SolverSettings
from resonate_audio.flow.times import (
    grid_from,
    grid_of,
    logit_normal_times,
    shifted,
    uniform_grid,
)


def steps(number: int, shift: float = 1.0) -> SolverSettings:
    return SolverSettings(num_inference_steps=number, time_shift=shift)


def test_grid_goes_from_noise_to_data_in_equal_steps() -> None:
    torch.testing.assert_close(uniform_grid(4), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))


def test_grid_ends_are_exact_at_any_number_of_steps() -> None:
    assert all(
        (grid[0].item(), grid[-1].item()) == (1.0, 0.0)
        for grid in (uniform_grid(num_steps) for num_steps in range(1, 60))
    )


def test_grid_of_no_step_is_refused() -> None:
    with pytest.raises(InputError, match="0 inference steps"):
        uniform_grid(0)


def test_a_normal_of_zero_is_the_middle_of_the_path() -> None:
    assert logit_normal_times(torch.zeros(1)).item() == 0.5


def test_mean_and_spread_act_on_the_normal() -> None:
    t = logit_normal_times(torch.tensor([0.5]), mean=-1.0, std=2.0 + 2 * math.log(3.0))
    torch.testing.assert_close(t, torch.tensor([0.75]))


def test_the_whole_strength_is_the_uniform_grid_to_the_bit() -> None:
    assert torch.equal(grid_from(1.0, steps(25)), uniform_grid(25))


def test_no_strength_is_no_step() -> None:
    assert grid_from(0.0, steps(25)).tolist() == [0.0]


def test_a_part_of_the_way_takes_that_part_of_the_steps() -> None:
    torch.testing.assert_close(grid_from(0.6, steps(10)), torch.linspace(0.6, 0, 7))
    assert len(grid_from(0.001, steps(10))) == 2


@pytest.mark.parametrize("strength", [-0.1, 1.01, math.nan])
def test_a_strength_outside_its_range_is_refused(strength: float) -> None:
    with pytest.raises(InputError, match=r"expected a number from 0 .* to 1"):
        grid_from(strength, steps(10))


def test_a_shift_moves_levels_towards_the_noise_and_keeps_the_ends() -> None:
    grid = grid_of(steps(4, 3.0))
    torch.testing.assert_close(grid, torch.tensor([1.0, 0.9, 0.75, 0.5, 0.0]))
    assert torch.equal(grid_of(steps(25)), uniform_grid(25))


def test_a_shift_is_undone_by_its_inverse() -> None:
    times = uniform_grid(7).double()
    torch.testing.assert_close(shifted(shifted(times, 3.0), 1 / 3.0), times)


@pytest.mark.parametrize("shift", [0.4, 1.0, 3.0])
def test_a_part_of_the_way_begins_at_its_strength_whatever_the_shift(shift: float) -> None:
    grid = grid_from(0.6, steps(20, shift))
    assert grid[0].item() == pytest.approx(0.6)
    assert grid[-1] == 0
    whole = grid_of(steps(20, shift))
    assert abs(len(grid) - 1 - int((whole < 0.6).sum())) <= 1
