from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError, ShapeError
from resonate_audio.training.algorithms.dpo import DPOConfig, dpo_loss, make_pairs


def rows(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_reference_itself_pays_log_two() -> None:
    error = rows(0.3, 1.2)
    loss = dpo_loss(error, error + 1, error, error + 1, 100.0)
    torch.testing.assert_close(loss.pairs, torch.full((2,), math.log(2)).double())
    assert loss.margin.tolist() == [0, 0]
    assert not loss.correct.any()


def test_at_the_reference_the_gradient_is_a_quarter_of_beta_either_way() -> None:
    winner, loser = rows(0.5).requires_grad_(), rows(0.7).requires_grad_()
    dpo_loss(winner, loser, rows(0.5), rows(0.7), 8.0).pairs.sum().backward()
    assert winner.grad is not None
    assert loser.grad is not None
    assert (winner.grad.item(), loser.grad.item()) == (2.0, -2.0)


def test_a_winner_that_gained_more_is_correct() -> None:
    loss = dpo_loss(rows(0.4, 0.6), rows(0.7, 0.7), rows(0.5, 0.5), rows(0.7, 0.7), 10.0)
    assert loss.correct.tolist() == [True, False]
    torch.testing.assert_close(loss.margin, rows(0.5, -0.5))
    torch.testing.assert_close(loss.pairs, -torch.sigmoid(rows(0.5, -0.5)).log())


def test_only_gains_on_the_reference_count() -> None:
    plain = dpo_loss(rows(0.4), rows(0.7), rows(0.5), rows(0.7), 10.0)
    shifted = dpo_loss(rows(2.4), rows(3.7), rows(2.5), rows(3.7), 10.0)
    torch.testing.assert_close(plain.pairs, shifted.pairs)


def test_gradients_agree_with_finite_differences() -> None:
    winner, loser = rows(0.4, 0.9).requires_grad_(), rows(0.7, 0.2).requires_grad_()
    assert gradcheck(
        lambda *errors: dpo_loss(*errors, rows(0.5, 0.5), rows(0.6, 0.6), 5.0).pairs,
        (winner, loser),
    )


def test_a_very_wrong_pair_keeps_a_finite_loss() -> None:
    loss = dpo_loss(rows(100.0), rows(0.0), rows(0.0), rows(100.0), 100.0)
    assert loss.pairs.item() == pytest.approx(10_000)


def test_the_best_take_meets_the_worst_of_its_own_prompt() -> None:
    pairs = make_pairs(rows(3, 9, 1, 8, 2, 7), torch.tensor([0, 1, 0, 1, 0, 1]))
    assert (pairs.winners.tolist(), pairs.losers.tolist()) == ([0, 1], [2, 5])
    assert pairs.num_ties == 0


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=12, max_size=12), st.permutations(range(12)))
def test_a_pair_never_mixes_prompts(values: list[int], order: list[int]) -> None:
    group = (torch.arange(12) // 4)[torch.tensor(order)]
    reward = torch.tensor(values, dtype=torch.float64)
    pairs = make_pairs(reward, group)
    assert torch.equal(group[pairs.winners], group[pairs.losers])
    assert (reward[pairs.winners] > reward[pairs.losers]).all()
    assert len(pairs.winners) + pairs.num_ties == 3


def test_equal_takes_make_no_pair_and_are_counted() -> None:
    pairs = make_pairs(rows(0.1, 0.1, 5, 9), torch.tensor([0, 0, 1, 1]))
    assert (pairs.winners.tolist(), pairs.losers.tolist(), pairs.num_ties) == ([3], [2], 1)


def test_no_pair_at_all_is_empty() -> None:
    pairs = make_pairs(rows(1, 1), torch.tensor([0, 0]))
    assert (len(pairs.winners), pairs.num_ties) == (0, 1)


def test_of_equally_good_takes_the_first_wins() -> None:
    pairs = make_pairs(rows(5, 1, 5, 1), torch.tensor([0, 0, 0, 0]))
    assert (pairs.winners.tolist(), pairs.losers.tolist()) == ([0], [1])


def test_a_prompt_with_one_take_is_refused() -> None:
    with pytest.raises(ShapeError, match="prompt 1 has 1 take"):
        make_pairs(rows(0, 1, 2), torch.tensor([0, 0, 1]))


def test_a_negative_beta_is_refused() -> None:
    with pytest.raises(ConfigError, match="beta: Input should be greater than 0"):
        parse_config(DPOConfig, {"beta": -1}, "recipe.yaml")
