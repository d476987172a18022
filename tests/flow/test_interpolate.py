from __future__ import annotations

import math

import torch

from resonate_audio.flow.interpolate import great_circle

FIRST, SECOND = torch.randn(2, 3, 50, 20, generator=torch.Generator().manual_seed(0)).unbind(0)


def between(share: float) -> torch.Tensor:
    return great_circle(FIRST, SECOND, torch.full((3,), share))


def test_the_ends_are_the_noises_to_the_bit() -> None:
    assert torch.equal(between(0.0), FIRST)
    assert torch.equal(between(1.0), SECOND)


def test_a_quarter_circle_passes_through_the_sines_of_its_angle() -> None:
    start, end = torch.zeros(1, 2, 1), torch.zeros(1, 2, 1)
    start[0, 0], end[0, 1] = 2.0, 2.0
    third = great_circle(start, end, torch.tensor([1 / 3]))
    expected = torch.tensor([2 * math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)])
    torch.testing.assert_close(third[0, :, 0], expected)


def test_the_middle_is_as_long_as_noise_is() -> None:
    root = between(0.5).square().mean().sqrt().item()
    straight = ((FIRST + SECOND) / 2).square().mean().sqrt().item()
    assert abs(root - 1) < 0.03
    assert straight < 0.75


def test_a_noise_and_itself_have_nothing_between_them() -> None:
    torch.testing.assert_close(great_circle(FIRST, FIRST, torch.full((3,), 0.3)), FIRST)


def test_rows_may_go_different_shares() -> None:
    mixed = great_circle(FIRST, SECOND, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(mixed[0], FIRST[0])
    assert torch.equal(mixed[2], SECOND[2])
    torch.testing.assert_close(mixed[1], between(0.5)[1])
