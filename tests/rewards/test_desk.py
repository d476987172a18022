"""Which thread computes scores, and what may happen beside it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from plain_judges import Failing

from resonate_audio.core.errors import RewardError
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.base import make_rewards
from resonate_audio.rewards.desk import JudgeDesk, score_now
from resonate_audio.rewards.ensemble import Ensemble, Member
from resonate_audio.rewards.function import FunctionReward

AUDIO = Waveform(torch.zeros(2, 100), 16_000)
TEXTS = ["a", "b"]


class Place:
    """A judge that computes here and remembers in which thread."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.reward = FunctionReward(self._judge, "place")

    def _judge(self, samples: np.ndarray, rate_hz: int, prompts: list[str]) -> list[float]:
        self.threads.append(threading.get_ident())
        return [float(len(self.threads))] * len(prompts)


class Server:
    """A judge elsewhere: waiting for its answer takes nothing here."""

    name = "server"

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answered = threading.Event()

    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        self.asked.set()
        await asyncio.sleep(0.05)
        self.answered.set()
        return make_rewards(torch.ones(len(prompts)), self.name, len(prompts))


def test_who_waits_computes() -> None:
    place = Place()
    score_now(place.reward, AUDIO, TEXTS)
    with JudgeDesk() as desk:
        batches = [desk.submit(place.reward, AUDIO, TEXTS) for _ in range(3)]
        totals = [desk.wait(scores).total[0].item() for scores in batches]
    assert place.threads == [threading.get_ident()] * 4
    assert totals == [2.0, 3.0, 4.0]


def test_scoring_here_leaves_no_thread_behind() -> None:
    place = Place()
    before = threading.active_count()
    score_now(place.reward, AUDIO, TEXTS)
    assert threading.active_count() == before


def test_beside_an_accelerator_judges_compute_while_nobody_waits() -> None:
    place = Place()
    with JudgeDesk(compute_beside=True) as desk:
        scores = desk.submit(place.reward, AUDIO, TEXTS)
        assert scores.result(timeout=30).total.tolist() == [1.0, 1.0]
        assert desk.wait(scores).judge == "place"
    assert threading.get_ident() not in place.threads


def test_a_server_works_while_nobody_waits() -> None:
    server = Server()
    with JudgeDesk() as desk:
        scores = desk.submit(server, AUDIO, TEXTS)
        assert server.answered.wait(timeout=30)
        assert desk.wait(scores).total.tolist() == [1.0, 1.0]


def test_a_server_is_asked_while_another_judge_computes_here() -> None:
    server = Server()

    def slow(samples: np.ndarray, rate_hz: int, prompts: list[str]) -> list[float]:
        assert server.answered.wait(timeout=30)
        return [1.0] * len(prompts)

    both = Ensemble([Member("here", FunctionReward(slow, "slow")), Member("there", server)])
    assert score_now(both, AUDIO, TEXTS).total.tolist() == [2.0, 2.0]


def test_a_failure_reaches_who_waits() -> None:
    with JudgeDesk() as desk:
        scores = desk.submit(Failing("bad"), AUDIO, TEXTS)
        with pytest.raises(RewardError, match="bad: row 1 has no score"):
            desk.wait(scores)


def test_work_whose_time_is_over_before_anybody_waits_is_not_begun() -> None:
    place = Place()
    late = Ensemble([Member("x", place.reward)], timeout_s=0.05)
    with JudgeDesk() as desk:
        scores = desk.submit(late, AUDIO, TEXTS)
        time.sleep(0.5)
        with pytest.raises(RewardError, match=r"place: no score after 0\.05 s"):
            desk.wait(scores)
    assert place.threads == []


def test_scores_nobody_waited_for_do_not_hold_up_the_end() -> None:
    with JudgeDesk() as desk:
        desk.submit(Place().reward, AUDIO, TEXTS)
        desk.submit(Server(), AUDIO, TEXTS)
