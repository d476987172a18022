"""The take that a judge likes most."""

import dataclasses

import pytest

from resonate_audio import Resonate
from resonate_audio.core.errors import ConfigError, InputError
from resonate_audio.core.types import Audio
from resonate_audio.rewards import best_take, open_reward
from resonate_audio.rewards.best import score_sound


@pytest.fixture(scope="module")
def takes() -> list[Audio]:
    nano = Resonate.from_pretrained("nano")
    return nano.generate(["rain falling"] * 3, seeds=1, duration_s=1.0, num_inference_steps=1)


def test_it_is_the_one_that_the_judge_scores_highest(takes: list[Audio]) -> None:
    judge = open_reward("nano-clap")
    scores = [score_sound(judge, take) for take in takes]
    assert best_take(takes, "nano-clap") is takes[scores.index(max(scores))]
    assert best_take(takes, open_reward("nano-clap")) is best_take(takes, "nano-clap")
    assert best_take(takes[::-1], "nano-clap") is takes[scores.index(max(scores))]


def test_of_equal_ones_the_first_is_taken(takes: list[Audio]) -> None:
    assert best_take([takes[1], takes[1], takes[0]], "guard") is takes[1]


def test_what_cannot_be_chosen_from_is_said(takes: list[Audio]) -> None:
    with pytest.raises(InputError, match="no sound"):
        best_take([])
    with pytest.raises(InputError, match="without a recipe"):
        best_take([dataclasses.replace(takes[0], recipe=None)])
    with pytest.raises(ConfigError, match="no such judge"):
        best_take(takes, "none")
