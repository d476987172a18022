"""The take that a judge likes most: feedback for those who train nothing."""

from __future__ import annotations

from collections.abc import Sequence

from resonate_audio.core.errors import InputError
from resonate_audio.core.types import Audio
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.catalogue import open_reward
from resonate_audio.rewards.desk import score_sounds


def best_take(sounds: Sequence[Audio], judge: str | Reward = "nano-lalm") -> Audio:
    """The sound that answers its own prompt best; of equal ones the first.

    Args:
        sounds: takes, each with its recipe, as `Resonate.generate` gives them.
        judge: as `open_reward` reads it, or what it gives, which is opened once for many calls.

    Raises:
        InputError: there is none, or one without a recipe, so that nobody knows its prompt.
        RewardError: the judge has no score for one.
        ConfigError: there is no such judge.
    """
    if not sounds:
        raise InputError("no sound to choose from")
    reward = open_reward(judge) if isinstance(judge, str) else judge
    return max(sounds, key=lambda sound: score_sound(reward, sound))


def score_sound(reward: Reward, sound: Audio) -> float:
    """What a judge says of one sound and the prompt in its recipe.

    Raises:
        InputError: it has no recipe.
        RewardError: the judge has no score.
    """
    if sound.recipe is None:
        raise InputError("a sound without a recipe: nobody knows what it was to be")
    return float(score_sounds(reward, [sound], [sound.recipe.prompt]).total[0])
