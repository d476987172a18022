from __future__ import annotations

import asyncio
import time

import pytest
import torch
from plain_judges import Cancelled, Careless, Failing, Steady, sleep_long, waits_for_itself

from resonate_audio.core.errors import ConfigError, RewardError
from resonate_audio.core.types import Waveform
from resonate_audio.rewards.base import Reward, make_rewards
from resonate_audio.rewards.desk import score_now
from resonate_audio.rewards.ensemble import Ensemble, Member
from resonate_audio.rewards.function import FunctionReward

AUDIO = Waveform(torch.zeros(3, 100), 16_000)
TEXTS = ["a", "b", "c"]


def test_the_total_is_the_weighted_sum() -> None:
    both = Ensemble([Member("x", Steady(value=2.0), 0.5), Member("y", Steady(value=-1.0), 3.0)])
    rewards = score_now(both, AUDIO, TEXTS)
    torch.testing.assert_close(rewards.total, torch.tensor([0.0, -2.0, -4.0], dtype=torch.float64))


def test_parts_hold_every_score_before_its_weight_under_its_label() -> None:
    both = Ensemble([Member("x", Steady(value=2.0), 0.5), Member("y", Steady(value=-1.0), 3.0)])
    parts = score_now(both, AUDIO, TEXTS).parts
    assert set(parts) == {"x", "y", "x/row", "y/row"}
    assert parts["x"].tolist() == [0, 2, 4]
    assert parts["y/row"].tolist() == [0, 1, 2]


def test_a_judge_of_weight_zero_is_only_reported() -> None:
    both = Ensemble([Member("x", Steady(value=2.0)), Member("y", Steady(value=9.0), 0.0)])
    rewards = score_now(both, AUDIO, TEXTS)
    assert rewards.total.tolist() == [0, 2, 4]
    assert rewards.parts["y"].tolist() == [0, 9, 18]


def test_weights_are_in_the_judges_id_and_name() -> None:
    both = Ensemble([Member("x", Steady("p"), 0.5), Member("y", Steady("q"))])
    assert both.name == "0.5*x+y"
    assert score_now(both, AUDIO, TEXTS).judge == "0.5*p[v1] + q[v1]"


def test_one_judge_alone_keeps_its_label_as_its_name() -> None:
    one = Ensemble([Member("clap", Steady())])
    assert isinstance(one, Reward)
    assert one.name == "clap"
    assert score_now(one, AUDIO, TEXTS).judge == "steady[v1]"


def test_judges_work_at_the_same_time() -> None:
    Steady.most_at_work = 0
    members = [Member(label, Steady(seconds=0.05)) for label in "xyz"]
    score_now(Ensemble(members), AUDIO, TEXTS)
    assert Steady.most_at_work == 3


def test_a_judge_that_takes_too_long_is_an_error_with_name_and_seconds() -> None:
    slow = Ensemble([Member("x", Steady("turtle", seconds=30.0))], timeout_s=0.05)
    start_s = time.monotonic()
    with pytest.raises(RewardError, match=r"turtle: no score after 0\.05 s for 3 sounds"):
        score_now(slow, AUDIO, TEXTS)
    assert time.monotonic() - start_s < 10


def test_a_judge_in_a_thread_that_takes_too_long_is_an_error_too() -> None:
    slow = Ensemble([Member("x", FunctionReward(sleep_long, "sleeper"))], timeout_s=0.05)
    with pytest.raises(RewardError, match=r"sleeper: no score after 0\.05 s"):
        score_now(slow, AUDIO, TEXTS)


def test_a_judges_own_timeout_is_not_taken_for_ours() -> None:
    judge = Ensemble([Member("x", FunctionReward(waits_for_itself, "mine"))])
    with pytest.raises(RewardError, match="mine: TimeoutError: my own server is slow"):
        score_now(judge, AUDIO, TEXTS)


def test_one_failure_fails_the_batch_and_stops_the_others() -> None:
    other = Steady(seconds=30.0)
    both = Ensemble([Member("x", other), Member("y", Failing("bad", seconds=0.01))])
    with pytest.raises(RewardError, match="bad: row 1 has no score"):
        score_now(both, AUDIO, TEXTS)
    assert other.was_stopped


def test_a_judge_that_breaks_the_protocol_is_named() -> None:
    with pytest.raises(RewardError, match=r"careless: total has shape \(2,\)"):
        score_now(Ensemble([Member("x", Careless("careless"))]), AUDIO, TEXTS)


def test_a_judge_of_which_a_part_was_cancelled_is_named() -> None:
    with pytest.raises(RewardError, match="own: a part of it was cancelled"):
        score_now(Ensemble([Member("x", Cancelled("own"))]), AUDIO, TEXTS)


def test_texts_and_sounds_must_be_one_each() -> None:
    with pytest.raises(RewardError, match="2 texts for 3 sounds"):
        asyncio.run(Ensemble([Member("x", Steady())]).score(AUDIO, TEXTS[:2]))


@pytest.mark.parametrize(
    ("members", "timeout_s", "complaint"),
    [
        ([], 1.0, "no judge"),
        ([Member("x", Steady()), Member("x", Steady())], 1.0, "x is given twice"),
        ([Member("x", Steady(), float("nan"))], 1.0, "weight nan of x"),
        ([Member("x", Steady())], 0.0, r"timeout_s 0\.0"),
    ],
)
def test_an_ensemble_that_makes_no_sense_is_refused(
    members: list[Member], timeout_s: float, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Ensemble(members, timeout_s)


def test_a_part_may_be_called_total() -> None:
    rewards = make_rewards([1.0, 2.0], "judge", 2, {"total": [8.0, 9.0]})
    assert rewards.total.tolist() == [1.0, 2.0]
    assert rewards.parts["total"].tolist() == [8.0, 9.0]
