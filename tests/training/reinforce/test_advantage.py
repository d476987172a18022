from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError, ShapeError
from resonate_audio.core.types import Rewards
from resonate_audio.training.reinforce.advantage import (
    AdvantageConfig,
    group_advantages,
    group_rows,
    reward_spread,
)

PLAIN = AdvantageConfig()


def rewards(*total: float, **parts: list[float]) -> Rewards:
    columns = {name: torch.tensor(values, dtype=torch.float64) for name, values in parts.items()}
    return Rewards(torch.tensor(total, dtype=torch.float64), columns, "test judge")


PAIRS = torch.tensor([0, 0, 1, 1])


def test_two_takes_are_one_standard_deviation_to_either_side() -> None:
    result = group_advantages(rewards(0, 1, 5, 9), PAIRS, AdvantageConfig(floor=1e-12))
    torch.testing.assert_close(result.values, torch.tensor([-1, 1, -1, 1]).double())


def test_the_floor_is_added_to_the_standard_deviation() -> None:
    result = group_advantages(rewards(0, 1, 5, 9), PAIRS, AdvantageConfig(floor=0.5))
    torch.testing.assert_close(result.values, torch.tensor([-0.5, 0.5, -0.8, 0.8]).double())


def test_one_prompt_does_not_move_another() -> None:
    quiet = group_advantages(rewards(0, 1, 5, 9), PAIRS, PLAIN).values
    louder = group_advantages(rewards(0, 1, 105, 209), PAIRS, PLAIN).values
    assert torch.equal(quiet[:2], louder[:2])


def test_global_spread_keeps_the_larger_differences_larger() -> None:
    config = AdvantageConfig(std="global", floor=1e-12)
    result = group_advantages(rewards(0, 1, 5, 9), PAIRS, config).values
    spread = torch.tensor([0, 1, 5, 9]).double().std(correction=0)
    torch.testing.assert_close(result * spread, torch.tensor([-0.5, 0.5, -2, 2]).double())


def test_no_spread_leaves_the_centred_rewards() -> None:
    result = group_advantages(rewards(0, 1, 5, 9), PAIRS, AdvantageConfig(std="none"))
    torch.testing.assert_close(result.values, torch.tensor([-0.5, 0.5, -2, 2]).double())


def test_rows_of_a_prompt_need_not_be_neighbours() -> None:
    order = torch.tensor([2, 0, 3, 1])
    straight = group_advantages(rewards(0, 1, 5, 9), PAIRS, PLAIN).values
    mixed = group_advantages(rewards(5, 0, 9, 1), PAIRS[order], PLAIN).values
    torch.testing.assert_close(mixed, straight[order])


def test_prompts_may_have_different_numbers_of_takes() -> None:
    config = AdvantageConfig(std="none")
    result = group_advantages(rewards(0, 3, 0, 1, 5), torch.tensor([0, 0, 0, 1, 1]), config)
    assert result.values.tolist() == [-1, 2, -1, -2, 2]
    assert result.metrics["takes_per_prompt"] == 2.5


def test_prompt_ids_may_be_any_integers() -> None:
    other = group_advantages(rewards(0, 1, 5, 9), torch.tensor([9, 9, -4, -4]), PLAIN).values
    assert torch.equal(other, group_advantages(rewards(0, 1, 5, 9), PAIRS, PLAIN).values)


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=6, max_size=6), st.floats(-50, 50))
def test_a_constant_added_to_all_rewards_changes_nothing(values: list[float], shift: float) -> None:
    group = torch.tensor([0, 0, 0, 1, 1, 1])
    config = AdvantageConfig(std="none", clip=None)
    before = group_advantages(rewards(*values), group, config).values
    after = group_advantages(rewards(*(value + shift for value in values)), group, config).values
    torch.testing.assert_close(before, after, rtol=0, atol=1e-4)


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=5, max_size=5))
def test_advantages_of_a_prompt_sum_to_zero(values: list[float]) -> None:
    config = AdvantageConfig(clip=None)
    result = group_advantages(rewards(*values), torch.zeros(5, dtype=torch.long), config)
    assert result.values.sum().item() == pytest.approx(0, abs=1e-6)


def test_equal_rewards_give_exactly_zero_and_are_not_kept() -> None:
    result = group_advantages(rewards(0.1, 0.1, 5, 9), PAIRS, PLAIN)
    assert result.values[:2].tolist() == [0, 0]
    assert result.kept.tolist() == [False, False, True, True]
    assert result.metrics["frac_zero_std"] == 0.5


def test_rounding_of_float32_is_not_a_difference() -> None:
    third = torch.tensor(1 / 3).item()
    result = group_advantages(rewards(1 / 3, third, 5, 9), PAIRS, PLAIN)
    assert result.kept.tolist() == [False, False, True, True]
    assert reward_spread(torch.tensor([1 / 3, third]).double()) == 0


def test_a_limit_bounds_the_size_and_is_counted() -> None:
    config = AdvantageConfig(std="none", clip=1.0)
    result = group_advantages(rewards(0, 1, 5, 9), PAIRS, config)
    assert result.values.tolist() == [-0.5, 0.5, -1, 1]
    assert result.metrics["frac_clipped"] == 0.5


def test_metrics_describe_the_rewards() -> None:
    metrics = group_advantages(rewards(0, 1, 5, 9), PAIRS, PLAIN).metrics
    assert metrics["reward_mean"] == 3.75
    assert metrics["reward_std_within_prompt"] == 1.25
    assert metrics["takes_per_prompt"] == 2


GDPO = AdvantageConfig(combine="gdpo", weights={"match": 3.0, "quality": 1.0}, floor=1e-12)


def test_gdpo_normalises_each_part_on_its_own() -> None:
    judged = rewards(0, 0, 0, 0, match=[0, 1, 0, 2], quality=[100, 0, 7, 9])
    result = group_advantages(judged, PAIRS, GDPO)
    torch.testing.assert_close(result.values, torch.tensor([-0.5, 0.5, -1, 1]).double())


def test_gdpo_keeps_a_prompt_that_any_part_tells_apart() -> None:
    judged = rewards(0, 0, 0, 0, match=[1, 1, 2, 2], quality=[3, 4, 5, 5])
    result = group_advantages(judged, PAIRS, GDPO)
    assert result.kept.tolist() == [True, True, False, False]
    torch.testing.assert_close(result.values, torch.tensor([-0.25, 0.25, 0, 0]).double())


def test_gdpo_names_the_part_that_is_missing() -> None:
    with pytest.raises(ConfigError, match="test judge reports no part 'match', only loudness"):
        group_advantages(rewards(0, 1, 2, 3, loudness=[0, 1, 2, 3]), PAIRS, GDPO)


def test_gdpo_without_weights_takes_those_of_the_judges() -> None:
    judged = rewards(0, 0, 0, 0, match=[0, 1, 0, 2], quality=[100, 0, 7, 9], length=[4, 3, 2, 1])
    own = replace(judged, weights={"match": 3.0, "quality": 1.0, "length": 0.0})
    bare = AdvantageConfig(combine="gdpo", floor=1e-12)
    expected = group_advantages(judged, PAIRS, GDPO).values
    assert torch.equal(group_advantages(own, PAIRS, bare).values, expected)


def test_gdpo_of_a_single_judge_is_its_total() -> None:
    judged = rewards(0, 1, 5, 9)
    bare = AdvantageConfig(combine="gdpo")
    expected = group_advantages(judged, PAIRS, AdvantageConfig()).values
    assert torch.equal(group_advantages(judged, PAIRS, bare).values, expected)


def test_a_prompt_with_one_take_is_refused() -> None:
    with pytest.raises(ShapeError, match="prompt 7 has 1 take"):
        group_advantages(rewards(0, 1, 2), torch.tensor([0, 0, 7]), PLAIN)


@pytest.mark.parametrize("ids", [[0, 0, 0], []])
def test_another_number_of_ids_than_rewards_is_refused(ids: list[int]) -> None:
    with pytest.raises(ShapeError, match="for 4 rewards"):
        group_advantages(rewards(0, 1, 2, 3), torch.tensor(ids, dtype=torch.long), PLAIN)


def test_groups_list_the_rows_of_each_prompt() -> None:
    rows = group_rows(torch.tensor([5, 2, 5, 2, 5]))
    assert [row.tolist() for row in rows] == [[1, 3], [0, 2, 4]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"std": "batch"}, "std"),
        ({"floor": 0}, "floor: Input should be greater than 0"),
        ({"clip": -1}, "clip: Input should be greater than 0"),
        ({"combine": "gdpo", "weights": {"match": 0.0}}, "all are 0"),
        ({"weights": {"match": 1.0}}, "go with combine 'gdpo'"),
    ],
)
def test_a_bad_setting_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        parse_config(AdvantageConfig, values, "recipe.yaml")
    assert "\n" not in str(raised.value)
