from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.training.algorithms.dppo import DPPOConfig, DPPOLoss, dppo_loss


def rows(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


LOG_RATIO = rows(0.1, -0.1, 0.1, -0.1)
"""Up, down, up, down …"""
ADVANTAGE = rows(1.0, -1.0, -1.0, 1.0)
"""… of which the first two lead away from the old policy."""


def loss_and_gradient(divergence: Tensor) -> tuple[DPPOLoss, Tensor]:
    log_prob = LOG_RATIO.clone().requires_grad_()
    loss = dppo_loss(log_prob, torch.zeros_like(log_prob), divergence, ADVANTAGE, 1e-5)
    loss.rows.sum().backward()
    assert log_prob.grad is not None
    return loss, log_prob.grad


def test_near_the_old_policy_it_is_the_plain_policy_gradient() -> None:
    loss, gradient = loss_and_gradient(torch.full((4,), 0.9e-5, dtype=torch.float64))
    torch.testing.assert_close(loss.rows, -ADVANTAGE * LOG_RATIO.exp())
    torch.testing.assert_close(gradient, loss.rows)
    assert not loss.masked.any()


def test_far_from_it_only_rows_that_come_back_have_a_gradient() -> None:
    loss, gradient = loss_and_gradient(torch.full((4,), 1e-5, dtype=torch.float64))
    assert loss.masked.tolist() == [True, True, False, False]
    assert gradient[:2].tolist() == [0, 0]
    assert gradient[2:].abs().min() > 0.9


def test_gradients_agree_with_finite_differences() -> None:
    start = LOG_RATIO.clone().requires_grad_()
    divergence = rows(0, 1, 0, 1)
    assert gradcheck(
        lambda log_prob: dppo_loss(log_prob, rows(0, 0, 0, 0), divergence, ADVANTAGE, 0.5).rows,
        start,
    )


def test_a_threshold_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="threshold: Input should be greater than 0"):
        parse_config(DPPOConfig, {"threshold": 0}, "recipe.yaml")
