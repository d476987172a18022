from __future__ import annotations

import pytest
import torch
from drawn import draw_double
from torch.autograd import gradcheck

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.training.algorithms.awm import AWMConfig, awm_loss
from resonate_audio.training.reinforce.divergence import row_mean_square

ADVANTAGE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


OLD, TARGET = draw_double(3, 4, 2), draw_double(3, 4, 2, seed=1)


def test_at_ratio_one_the_gradient_is_the_advantage_times_that_of_flow_matching() -> None:
    velocity = OLD.clone().requires_grad_()
    loss = awm_loss(velocity, OLD, TARGET, ADVANTAGE, 0.2)
    (ours,) = torch.autograd.grad(loss.rows.sum(), velocity)
    matching = (ADVANTAGE * row_mean_square(velocity - TARGET)).sum()
    (expected,) = torch.autograd.grad(matching, velocity)
    assert loss.ratio.tolist() == [1, 1, 1]
    torch.testing.assert_close(ours, expected)


def test_the_log_ratio_is_the_weighted_drop_of_the_error() -> None:
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    loss = awm_loss(TARGET + 1, TARGET + 2, TARGET, ADVANTAGE, 1.0, weight)
    torch.testing.assert_close(loss.ratio.log(), 3 * weight)


def test_rows_beyond_the_range_have_no_gradient() -> None:
    velocity = TARGET.clone().requires_grad_()
    loss = awm_loss(velocity + 0.1, TARGET + 2, TARGET, ADVANTAGE.abs(), 0.5)
    loss.rows.sum().backward()
    assert loss.above.all()
    assert velocity.grad is not None
    assert velocity.grad.abs().max() == 0


def test_gradients_agree_with_finite_differences() -> None:
    start = (OLD + 0.1 * draw_double(3, 4, 2, seed=2)).requires_grad_()
    assert gradcheck(lambda v: awm_loss(v, OLD, TARGET, ADVANTAGE, 0.9).rows, start)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="velocity_kl: Input should be greater than or equal"):
        parse_config(AWMConfig, {"velocity_kl": -1}, "recipe.yaml")
