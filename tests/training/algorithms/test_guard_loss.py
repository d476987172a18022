from __future__ import annotations

import pytest
import torch
from drawn import draw_double
from torch.autograd import gradcheck

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.flow.sde import gaussian_log_prob, make_schedule, sde_step
from resonate_audio.training.algorithms.guard import GuardConfig, centred_log_ratio, guard_loss
from resonate_audio.training.reinforce.divergence import gaussian_kl

STD = torch.tensor([0.1, 0.4, 0.9, 2.0], dtype=torch.float64)
JACOBIAN = torch.tensor([0.05, 0.1, 0.2, 0.3], dtype=torch.float64)
ADVANTAGE = torch.tensor([1.0, -2.0, 0.5, -0.5], dtype=torch.float64)


OLD = draw_double(4, 6, 3)
MEAN = OLD + 0.05 * draw_double(4, 6, 3, seed=1)
STATE = OLD + STD[:, None, None] * draw_double(4, 6, 3, seed=2)


def test_the_centred_ratio_is_the_log_ratio_with_its_bias_taken_off() -> None:
    plain = gaussian_log_prob(STATE, MEAN, STD) - gaussian_log_prob(STATE, OLD, STD)
    expected = (plain + gaussian_kl(MEAN, OLD, STD)) * STD
    actual = centred_log_ratio(MEAN, OLD, STATE, STD)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-15)


def test_the_centred_ratio_averages_to_zero_where_the_plain_one_does_not() -> None:
    std = torch.full((4000,), 0.3, dtype=torch.float64)
    old = torch.zeros(4000, 4, 2, dtype=torch.float64)
    mean, state = old + 0.3, old + 0.3 * draw_double(4000, 4, 2)
    plain = gaussian_log_prob(state, mean, std) - gaussian_log_prob(state, old, std)
    assert plain.mean().item() == pytest.approx(-0.5, abs=0.02)
    assert centred_log_ratio(mean, old, state, std).mean().item() == pytest.approx(0, abs=0.005)


def test_the_gradient_has_one_size_at_every_step() -> None:
    schedule, index = make_schedule("ou", 0.7, 10), torch.tensor([0, 3, 8])
    noise = draw_double(1, 5, 2).float().expand(3, 5, 2)
    velocity = draw_double(3, 5, 2).float().requires_grad_()
    old = sde_step(draw_double(3, 5, 2, seed=3).float(), velocity, index, schedule, noise=noise)
    loss = guard_loss(
        old.mean, old.mean.detach(), old.next_state, old.std, schedule.jacobian[index],
        torch.ones(3), 1e-4,
    )  # fmt: skip
    loss.rows.sum().backward()
    assert velocity.grad is not None
    assert loss.ratio.tolist() == [1, 1, 1]
    torch.testing.assert_close(velocity.grad, noise / 10)


def test_clipped_rows_have_no_gradient() -> None:
    mean = MEAN.clone().requires_grad_()
    toward = OLD + 0.5 * (STATE - OLD)
    loss = guard_loss(toward + 0 * mean, OLD, STATE, STD, JACOBIAN, ADVANTAGE.abs(), 1e-3)
    loss.rows.sum().backward()
    assert loss.above.all()
    assert mean.grad is not None
    assert mean.grad.abs().max() == 0


def test_gradients_agree_with_finite_differences() -> None:
    start = MEAN.clone().requires_grad_()
    assert gradcheck(
        lambda mean: guard_loss(mean, OLD, STATE, STD, JACOBIAN, ADVANTAGE, 0.2).rows, start
    )


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="kl: Input should be greater than or equal to 0"):
        parse_config(GuardConfig, {"kl": -1}, "recipe.yaml")
