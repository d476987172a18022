from __future__ import annotations

import pytest
import torch
from gaussian_flow import autoregressive, drawing, gaussian_velocity

from resonate_audio.core.errors import Cancelled
from resonate_audio.core.sampling import SolverName, SolverSettings
from resonate_audio.flow.direct_edit import edit_directly
from resonate_audio.flow.ode import make_step
from resonate_audio.flow.times import grid_from, uniform_grid

COVARIANCE = autoregressive(6, 0.8)
SOURCE = drawing(5, 6, 2)()


def edited(to: float, first_level: float = 1.0, num_draws: int = 1) -> torch.Tensor:
    return edit_directly(
        gaussian_velocity(0.0, COVARIANCE),
        gaussian_velocity(to, COVARIANCE),
        SOURCE,
        drawing(*SOURCE.shape, seed=1),
        grid_from(first_level, SolverSettings(num_inference_steps=7)).double(),
        num_draws,
    )


def test_the_same_prompt_changes_nothing() -> None:
    assert torch.equal(edited(0.0), SOURCE)


@pytest.mark.parametrize("num_draws", [1, 3])
def test_between_normals_of_one_shape_every_sound_moves_as_the_mean_does(num_draws: int) -> None:
    # v_target − v_source = k(t)·(d − (1−t)·Δ) − Δ is solved by d = (1−t)·Δ, whatever the noise.
    torch.testing.assert_close(edited(2.5, num_draws=num_draws), SOURCE + 2.5)


def test_a_lower_first_level_changes_less() -> None:
    moved = [(edited(2.5, level) - SOURCE).abs().mean().item() for level in (0.2, 0.6, 1.0)]
    assert moved[0] < moved[1] < moved[2]


@pytest.mark.parametrize("solver", ["heun", "midpoint"])
def test_a_solver_of_second_order_follows_a_slope_that_changes_evenly(solver: SolverName) -> None:
    # v_target − v_source = 2t, so what moves is ∫ from 1 to 0 of 2t dt = −1, exactly.
    found = edit_directly(
        lambda z, t: torch.zeros_like(z),
        lambda z, t: (2 * t)[:, None, None].expand_as(z),
        SOURCE,
        drawing(*SOURCE.shape),
        uniform_grid(3).double(),
        step=make_step(solver),
    )
    torch.testing.assert_close(found, SOURCE - 1)


def test_a_callback_cancels() -> None:
    velocity = gaussian_velocity(0.0, COVARIANCE)
    with pytest.raises(Cancelled, match="step 1 of 3"):
        edit_directly(velocity, velocity, SOURCE, drawing(*SOURCE.shape), uniform_grid(3).double(),
                      on_step=lambda done, in_all: False)  # fmt: skip
