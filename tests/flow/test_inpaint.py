from __future__ import annotations

import pytest
import torch
from gaussian_flow import autoregressive, drawing, gaussian_velocity

from resonate_audio.core.errors import Cancelled
from resonate_audio.flow.inpaint import plan_stretches, solve_masked
from resonate_audio.flow.ode import integrate
from resonate_audio.flow.times import uniform_grid

RHO, FRAMES, ROWS = 0.9, 9, 400
VELOCITY = gaussian_velocity(0.0, autoregressive(FRAMES, RHO))
KNOWN = torch.linspace(1.0, 2.0, FRAMES, dtype=torch.float64)[None, :, None].repeat(ROWS, 1, 4)
IS_FREE = torch.zeros(FRAMES, dtype=torch.bool)
IS_FREE[3:6] = True
TIMES = uniform_grid(40).double()


def conditional() -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of the free frames given the known ones, by the normal's own formula."""
    covariance = autoregressive(FRAMES, RHO)
    across = covariance[IS_FREE][:, ~IS_FREE] @ covariance[~IS_FREE][:, ~IS_FREE].inverse()
    left = covariance[IS_FREE][:, IS_FREE] - across @ covariance[~IS_FREE][:, IS_FREE]
    return across @ KNOWN[0, ~IS_FREE, 0], left.diagonal().sqrt()


def solved(num_rounds: int, repeat_above: float = 0.0) -> torch.Tensor:
    return solve_masked(
        VELOCITY, KNOWN, IS_FREE, drawing(*KNOWN.shape), TIMES, num_rounds, repeat_above
    )


def error(z: torch.Tensor) -> float:
    mean, _ = conditional()
    return (z[:, IS_FREE].mean(dim=(0, 2)) - mean).abs().max().item()


def test_known_frames_come_back_to_the_bit() -> None:
    assert torch.equal(solved(2, 0.3)[:, ~IS_FREE], KNOWN[:, ~IS_FREE])


def test_what_stands_in_the_free_frames_does_not_matter() -> None:
    other = torch.where(IS_FREE[:, None], torch.nan_to_num(KNOWN * 1e3), KNOWN)
    made = [
        solve_masked(VELOCITY, known, IS_FREE, drawing(*KNOWN.shape), TIMES, 2)
        for known in (KNOWN, other)
    ]
    torch.testing.assert_close(*made)


def test_with_jumps_a_gap_is_filled_as_the_normal_says() -> None:
    z = solved(num_rounds=8)
    mean, std = conditional()
    torch.testing.assert_close(z[:, IS_FREE].mean(dim=(0, 2)), mean, atol=0.06, rtol=0)
    torch.testing.assert_close(z[:, IS_FREE].std(dim=(0, 2)), std, atol=0.08, rtol=0)


def test_jumps_make_free_frames_fit_those_that_are_known() -> None:
    assert error(solved(1)) > 2 * error(solved(8))


def test_with_every_frame_free_it_is_plain_solving() -> None:
    every = torch.ones(FRAMES, dtype=torch.bool)
    noise = drawing(*KNOWN.shape)()
    free = solve_masked(VELOCITY, KNOWN, every, lambda: noise, TIMES)
    torch.testing.assert_close(free, integrate(VELOCITY, noise, TIMES))


def test_the_step_from_pure_noise_is_made_once_and_the_end_of_the_way_too() -> None:
    assert plan_stretches([1.0, 0.75, 0.5, 0.25, 0.0], num_rounds=2, repeat_above=0.5) == [
        [1.0, 0.75],
        [0.75, 0.5],
        [0.75, 0.5],
        [0.5, 0.25, 0.0],
    ]


def test_without_rounds_there_is_one_stretch() -> None:
    assert plan_stretches([1.0, 0.5, 0.0], 1, 0.0) == [[1.0, 0.5, 0.0]]


def test_a_callback_hears_of_repeated_steps_and_cancels() -> None:
    told: list[tuple[int, int]] = []

    def stop_at_three(done: int, in_all: int) -> bool:
        told.append((done, in_all))
        return done < 3

    with pytest.raises(Cancelled, match="step 3 of 5"):
        solve_masked(VELOCITY, KNOWN, IS_FREE, drawing(*KNOWN.shape), uniform_grid(4).double(),
                     2, 0.5, stop_at_three)  # fmt: skip
    assert told == [(1, 5), (2, 5), (3, 5)]
