from __future__ import annotations

import math

import pytest
import torch
from gaussian_flow import autoregressive, drawing, gaussian_velocity

from resonate_audio.core.errors import Cancelled
from resonate_audio.flow.inversion import invert
from resonate_audio.flow.ode import integrate
from resonate_audio.flow.times import uniform_grid

VELOCITY = gaussian_velocity(3.0, 0.25 * autoregressive(6, 0.8))
DATA = 3 + drawing(5, 6, 2)() / 2


def round_trip_error(num_steps: int, num_refinements: int) -> float:
    times = uniform_grid(num_steps).double()
    noise = invert(VELOCITY, DATA, times, num_refinements)
    return (integrate(VELOCITY, noise, times) - DATA).abs().max().item()


def test_the_noise_of_gaussian_data_is_the_data_brought_to_unit_variance() -> None:
    velocity = gaussian_velocity(3.0, 0.25 * torch.eye(6, dtype=torch.float64))
    noise = invert(velocity, DATA, uniform_grid(2000).double())
    torch.testing.assert_close(noise, (DATA - 3) / 0.5, atol=5e-3, rtol=0)


def test_without_refinement_the_error_falls_with_the_step() -> None:
    errors = [round_trip_error(n, 0) for n in (100, 200)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.15)


def test_refinements_bring_the_data_back() -> None:
    errors = [round_trip_error(25, refinements) for refinements in (0, 2, 20)]
    assert errors[0] > 5 * errors[1]
    assert errors[2] < 1e-6


def test_a_callback_cancels() -> None:
    with pytest.raises(Cancelled, match="step 1 of 4"):
        invert(VELOCITY, DATA, uniform_grid(4).double(), on_step=lambda done, in_all: False)
