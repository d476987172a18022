from __future__ import annotations

import torch

from resonate_audio.flow.ode import integrate
from resonate_audio.flow.schedule import part_shares, scheduled
from resonate_audio.flow.times import uniform_grid
from resonate_audio.flow.windows import Windows, windowed


def test_shares_of_a_frame_sum_to_one() -> None:
    shares = part_shares([3.0, 3.5, 8.0], num_frames=12, fade_frames=4.0)
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(12))
    assert (shares >= -1e-6).all()


def test_a_part_passes_into_the_next_in_a_straight_line() -> None:
    first, second = part_shares([4.0], num_frames=8, fade_frames=4.0)
    assert first.tolist() == [1, 1, 0.875, 0.625, 0.375, 0.125, 0, 0]
    torch.testing.assert_close(second, first.flip(0))


def test_each_part_is_solved_to_its_own_data() -> None:
    noise = torch.randn(2, 40, 3)
    velocities = [lambda z, t, to=to: noise[:, : z.shape[1]] * 0 - to for to in (1.0, 5.0)]
    shares = part_shares([20.0], num_frames=40, fade_frames=4.0)
    velocity = windowed(scheduled(velocities, shares), Windows(40, 16, 8))
    moved = integrate(velocity, noise, uniform_grid(4)) - noise
    torch.testing.assert_close(moved[:, :18], torch.ones(2, 18, 3))
    torch.testing.assert_close(moved[:, 22:], torch.full((2, 18, 3), 5.0))


def test_one_part_is_that_part_to_the_bit() -> None:
    z, t = torch.randn(1, 8, 2), torch.tensor([0.3])
    velocity = scheduled([lambda z, t: z.sin() * t], torch.ones(1, 8))
    assert torch.equal(velocity(z, t, torch.arange(8)), z.sin() * t)


def test_a_part_that_is_not_there_is_not_computed() -> None:
    asked: list[int] = []

    def first(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(z.shape[1])
        return z

    velocity = scheduled([first, lambda z, t: z], part_shares([10.0], 40, 2.0))
    velocity(torch.randn(1, 8, 2), torch.tensor([0.3]), torch.arange(20, 28))
    assert asked == []
