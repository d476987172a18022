from __future__ import annotations

import pytest
import torch
from drawn import draw_double
from torch import Tensor

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.training.algorithms.nft import NFTConfig, nft_loss, optimality

T = torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)
HALF = torch.full((3,), 0.5, dtype=torch.float64)


OLD, TARGET = draw_double(3, 4, 2), draw_double(3, 4, 2, seed=1)


def gradient_of(velocity: Tensor, goodness: Tensor, mix: float) -> Tensor:
    velocity = velocity.clone().requires_grad_()
    nft_loss(velocity, OLD, TARGET, T, goodness, mix).rows.sum().backward()
    assert velocity.grad is not None
    return velocity.grad


def test_advantages_become_probabilities_of_being_good() -> None:
    r = optimality(torch.tensor([-9.0, -2.5, 0.0, 2.5, 9.0]), 5.0)
    assert r.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_a_take_that_is_neither_good_nor_bad_has_no_gradient() -> None:
    for mix in (0.1, 1.0):
        assert gradient_of(OLD, HALF, mix).abs().max() < 1e-15


def test_at_the_old_policy_good_takes_pull_as_much_as_bad_ones_push() -> None:
    good, bad = (gradient_of(OLD, torch.full_like(T, r), 0.5) for r in (0.8, 0.2))
    torch.testing.assert_close(good, -bad)
    assert ((OLD - TARGET) * good).sum(dim=(1, 2)).min() > 0


def test_the_gradient_is_that_of_two_weighted_regressions() -> None:
    velocity, r, mix = draw_double(3, 4, 2, seed=2), torch.tensor([0.9, 0.4, 0.1]).double(), 0.7
    good = (1 - mix) * OLD + mix * velocity - TARGET
    bad = (1 + mix) * OLD - mix * velocity - TARGET
    size = [(T[:, None, None] * e).abs().mean(dim=(1, 2)) for e in (good, bad)]
    scale = 2 * mix * T.square() / 8
    expected = (scale * r / size[0])[:, None, None] * good
    expected -= (scale * (1 - r) / size[1])[:, None, None] * bad
    torch.testing.assert_close(gradient_of(velocity, r, mix), expected)


def test_an_error_of_one_size_costs_its_share_of_the_noise_level() -> None:
    goodness = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    loss = nft_loss(TARGET + 3, TARGET + 1, TARGET, T, goodness, 1.0)
    torch.testing.assert_close(loss.positive, 3 * T)
    torch.testing.assert_close(loss.negative, T)
    torch.testing.assert_close(loss.rows, goodness * 3 * T + (1 - goodness) * T)


def test_a_good_policy_without_error_costs_nothing() -> None:
    loss = nft_loss(TARGET, TARGET, TARGET, T, torch.ones_like(T), 1.0)
    assert loss.rows.tolist() == [0, 0, 0]


def test_descent_goes_to_good_takes_and_away_from_bad_ones() -> None:
    start = (OLD - TARGET).square().mean(dim=(1, 2))
    for r, nearer in ((1.0, True), (0.0, False)):
        moved = OLD - 0.01 * gradient_of(OLD, torch.full_like(T, r), 1.0)
        assert (((moved - TARGET).square().mean(dim=(1, 2)) < start) == nearer).all()


def test_a_mix_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="mix: Input should be greater than 0"):
        parse_config(NFTConfig, {"mix": 0}, "recipe.yaml")
