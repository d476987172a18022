from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.training.algorithms.best_of_n import (
    RAFTConfig,
    RWRConfig,
    raft_mask,
    rwr_weights,
)

GROUP = torch.tensor([0, 1, 0, 1])


def rows(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_equal_rewards_weigh_one() -> None:
    torch.testing.assert_close(rwr_weights(rows(2, 3, 2, 3), GROUP, 0.1), rows(1, 1, 1, 1))


def test_one_temperature_of_reward_is_a_factor_of_e() -> None:
    weights = rwr_weights(rows(1.0, 7.0, 0.5, 7.5), GROUP, 0.5)
    assert (weights[0] / weights[2]).item() == pytest.approx(math.e)
    assert (weights[3] / weights[1]).item() == pytest.approx(math.e)


def test_weights_average_to_one_within_a_prompt_and_never_overflow() -> None:
    weights = rwr_weights(rows(1e6, 3, -1e6, 4), GROUP, 0.01)
    torch.testing.assert_close(weights, rows(2, 0, 0, 2))


def test_another_prompt_changes_nothing() -> None:
    quiet, loud = (rwr_weights(rows(1, 3, 2, other), GROUP, 0.5)[::2] for other in (4, 400))
    assert torch.equal(quiet, loud)


def test_the_best_takes_of_each_prompt_are_kept() -> None:
    assert raft_mask(rows(1, 9, 2, 8), GROUP, 1).tolist() == [False, True, True, False]


def test_as_many_takes_are_kept_as_asked_for_even_if_equal() -> None:
    mask = raft_mask(rows(1, 1, 1, 5, 5, 5), torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    assert mask.tolist() == [True, True, False, True, True, False]


def test_keeping_more_takes_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="keep 3 of 2 takes a prompt"):
        raft_mask(rows(1, 2, 3, 4), GROUP, 3)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperature: Input should be greater than 0"):
        parse_config(RWRConfig, {"temperature": 0}, "recipe.yaml")
    with pytest.raises(ConfigError, match="keep: Input should be greater than or equal to 1"):
        parse_config(RAFTConfig, {"keep": 0}, "recipe.yaml")
