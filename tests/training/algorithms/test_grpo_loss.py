from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.flow.sde import make_schedule, sde_step
from resonate_audio.training.algorithms.grpo import (
    GRPOConfig,
    Surrogate,
    exact_kl_weight,
    grpo_loss,
)
from resonate_audio.training.reinforce.divergence import gaussian_kl


def rows(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def loss_and_gradient(
    log_ratio: Tensor, advantage: Tensor, clip: float
) -> tuple[Surrogate, Tensor]:
    log_prob = (log_ratio - 1.4).requires_grad_()
    surrogate = grpo_loss(log_prob, torch.full_like(log_prob, -1.4), advantage, clip)
    surrogate.rows.sum().backward()
    assert log_prob.grad is not None
    return surrogate, log_prob.grad


def test_at_ratio_one_the_gradient_is_minus_the_advantage() -> None:
    advantage = rows(2.0, -3.0, 0.0)
    surrogate, gradient = loss_and_gradient(rows(0, 0, 0), advantage, 1e-4)
    torch.testing.assert_close(gradient, -advantage)
    torch.testing.assert_close(surrogate.rows, -advantage)
    assert surrogate.ratio.tolist() == [1, 1, 1]


def test_beyond_the_range_there_is_no_gradient_where_moving_on_pays() -> None:
    _, gradient = loss_and_gradient(rows(0.3, -0.3), rows(1.0, -1.0), 0.2)
    assert gradient.tolist() == [0, 0]


def test_beyond_the_range_the_gradient_stays_where_moving_back_pays() -> None:
    surrogate, gradient = loss_and_gradient(rows(0.3, -0.3), rows(-1.0, 1.0), 0.2)
    torch.testing.assert_close(gradient, surrogate.ratio * rows(1.0, -1.0))


def test_the_loss_beyond_the_range_is_that_of_its_edge() -> None:
    surrogate, _ = loss_and_gradient(rows(0.3, -0.3), rows(2.0, -2.0), 0.2)
    torch.testing.assert_close(surrogate.rows, rows(-2.4, 1.6))


def test_ratios_outside_the_range_are_told_apart() -> None:
    surrogate, _ = loss_and_gradient(rows(0.3, -0.3, 0.1), rows(1.0, 1.0, 1.0), 0.2)
    assert surrogate.above.tolist() == [True, False, False]
    assert surrogate.below.tolist() == [False, True, False]


def test_gradients_agree_with_finite_differences() -> None:
    old, advantage = rows(-1.0, -1.0, -1.1, -0.9), rows(1.0, -2.0, 0.5, -0.5)
    start = rows(-0.95, -1.5, -0.4, -1.05).requires_grad_()
    assert gradcheck(lambda log_prob: grpo_loss(log_prob, old, advantage, 0.2).rows, start)


def test_float64_advantages_leave_a_float32_loss() -> None:
    log_prob = torch.zeros(2)
    assert grpo_loss(log_prob, log_prob, rows(1.0, -1.0), 0.2).rows.dtype == torch.float32


def test_a_gradient_step_makes_a_good_sample_likelier_and_a_bad_one_less() -> None:
    schedule, index = make_schedule("ou", 0.7, 4), torch.tensor([1, 1])
    generator = torch.Generator().manual_seed(0)
    z, noise = (torch.randn(2, 6, 3, generator=generator) for _ in range(2))
    velocity = torch.zeros(2, 6, 3, requires_grad=True)
    sampled = sde_step(z, velocity, index, schedule, noise=noise)
    loss = grpo_loss(sampled.log_prob, sampled.log_prob.detach(), rows(1.0, -1.0), 0.2).rows
    (gradient,) = torch.autograd.grad(loss.sum(), velocity)
    moved = sde_step(z, -gradient, index, schedule, next_state=sampled.next_state)
    assert (moved.log_prob > sampled.log_prob).tolist() == [True, False]


def test_a_published_weight_means_the_same_after_conversion() -> None:
    schedule = make_schedule("flow_sde", 0.7, 10)
    mean, other = torch.ones(1, 2, 2), torch.zeros(1, 2, 2)
    std_without_length = schedule.std[3:4] / 0.1**0.5
    published = 0.04 * gaussian_kl(mean, other, std_without_length)
    ours = exact_kl_weight(0.04, 0.1) * gaussian_kl(mean, other, schedule.std[3:4])
    torch.testing.assert_close(published, ours)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kl": -0.1}, "kl: Input should be greater than or equal to 0"),
        ({"velocity_kl": -1}, "velocity_kl"),
        ({"clip": 0}, "clip: Input should be greater than 0"),
        ({"clip": 1}, "clip: Input should be less than 1"),
        ({"beta": 0.04}, "beta: unknown field"),
    ],
)
def test_a_bad_setting_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        parse_config(GRPOConfig, values, "recipe.yaml")
    assert "\n" not in str(raised.value)
