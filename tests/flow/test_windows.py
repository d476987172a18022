from __future__ import annotations

import pytest
import torch
from gaussian_flow import autoregressive, drawing, gaussian_velocity
from torch import Tensor

from resonate_audio.core.errors import InputError
from resonate_audio.flow.ode import integrate
from resonate_audio.flow.times import uniform_grid
from resonate_audio.flow.windows import VelocityAt, Windows, windowed

RHO = 0.9
LINE = Windows(num_frames=50, window_frames=16, overlap_frames=8)
CIRCLE = Windows(num_frames=30, window_frames=16, overlap_frames=8, is_circular=True)
SHORT_CIRCLE = Windows(num_frames=12, window_frames=16, overlap_frames=8, is_circular=True)
LAYOUTS = pytest.mark.parametrize("windows", [LINE, CIRCLE, SHORT_CIRCLE])


def autoregression(size: int) -> VelocityAt:
    """The velocity of a network that has learnt windows of an autoregression."""
    velocity = gaussian_velocity(0.0, autoregressive(size, RHO))
    return lambda z, t, frames: velocity(z, t)


def neighbours(z: Tensor) -> Tensor:
    """Correlation of each frame with the next; of the last with the first."""
    power = z.square().mean(dim=(0, 2))
    return (z * z.roll(-1, dims=1)).mean(dim=(0, 2)) / (power * power.roll(-1)).sqrt()


@LAYOUTS
@pytest.mark.parametrize("turn", [0.0, 0.3, 0.99, 17.5])
def test_every_frame_lies_in_a_window(windows: Windows, turn: float) -> None:
    seen = torch.cat([windows.frames(start) for start in windows.starts(turn)]).unique()
    assert seen.tolist() == list(range(windows.num_frames))


@LAYOUTS
def test_every_cut_lies_inside_another_window(windows: Windows) -> None:
    starts = windows.starts(0.4)
    inner = torch.zeros(windows.num_frames, dtype=torch.bool)
    for start in starts:
        inner[windows.frames(start)[1:-1]] = True
    if not windows.is_circular:
        inner[[0, -1]] = True  # the true ends
    assert inner.all()


@LAYOUTS
def test_a_velocity_that_sees_one_frame_at_a_time_is_not_changed(windows: Windows) -> None:
    z, t = torch.randn(2, windows.num_frames, 3), torch.full((2,), 0.37)
    blended = windowed(lambda z, t, frames: z.square() + t[:, None, None], windows)(z, t)
    torch.testing.assert_close(blended, z.square() + 0.37)


@LAYOUTS
def test_a_window_is_told_which_frames_it_holds(windows: Windows) -> None:
    places = torch.arange(windows.num_frames, dtype=torch.float32)[None, :, None]
    blended = windowed(lambda z, t, frames: z - frames[None, :, None], windows)
    torch.testing.assert_close(blended(places, torch.tensor([0.6])), torch.zeros_like(places))


def test_a_line_that_fits_is_one_window_to_the_bit() -> None:
    z, t = torch.randn(1, 10, 2), torch.tensor([0.5])
    one = windowed(lambda z, t, frames: z.sin() * t, Windows(10, 16, 8))
    assert torch.equal(one(z, t), z.sin() * t)


def test_windows_lie_elsewhere_at_another_noise_level() -> None:
    assert LINE.starts(0.1) != LINE.starts(0.6)
    assert LINE.starts(0.25) == LINE.starts(3.25)


def test_no_joint_of_a_long_solve_can_be_told_by_how_neighbours_go_together() -> None:
    noise = drawing(200, LINE.num_frames, 4)()
    long = integrate(windowed(autoregression(16), LINE), noise, uniform_grid(60).double())
    between = neighbours(long)[:-1]
    assert between.min().item() > RHO - 0.06
    assert between.max().item() < RHO + 0.02


@pytest.mark.parametrize("windows", [CIRCLE, SHORT_CIRCLE])
def test_the_end_of_a_circle_meets_its_beginning_as_any_two_neighbours_meet(
    windows: Windows,
) -> None:
    noise = drawing(400, windows.num_frames, 4)()
    loop = integrate(windowed(autoregression(windows.size), windows), noise,
                     uniform_grid(60).double())  # fmt: skip
    between = neighbours(loop)
    assert between[-1].item() == pytest.approx(between[:-1].mean().item(), abs=0.03)


def test_without_a_circle_the_end_does_not_know_the_beginning() -> None:
    noise = drawing(400, 12, 4)()
    velocity = gaussian_velocity(0.0, autoregressive(12, RHO))
    line = integrate(velocity, noise, uniform_grid(60).double())
    assert neighbours(line)[-1].item() < 0.4


def test_windows_that_do_not_advance_are_refused() -> None:
    with pytest.raises(InputError, match="windows of 8 frames that share 8"):
        Windows(20, 8, 8)
