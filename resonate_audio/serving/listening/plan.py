"""What one rater hears, in an order of their own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations, groupby

from resonate_audio.core.config import FrozenConfig
from resonate_audio.serving.listening.test import BlindClip, ListeningTest


class Trial(FrozenConfig):
    """One page of a test: a clip or a pair, and the questions about it."""

    axes: tuple[str, ...]
    clips: tuple[str, ...]
    """Ids; two where a pair is compared, in the order of the page."""
    is_repeat: bool = False
    """Heard before; the answer tells how steady a rater is, and is no part of a mean."""


def plan_trials(test: ListeningTest, secret: str) -> tuple[Trial, ...]:
    """Order the pages of a rater; the same secret gives the same order.

    Questions without the text come first, for all clips: whoever has read a text cannot unread it.

    Args:
        test: the test.
        secret: the rater's token, or what stands for it.
    """
    rng = random.Random(f"{test.seed}:{secret}")
    if test.compares:
        return tuple(_pairs(test, rng))
    trials: list[Trial] = []
    for _, axes in groupby(test.axes, key=lambda axis: axis.shows_prompt):
        names = tuple(axis.name for axis in axes)
        part = [Trial(axes=names, clips=(clip.id,)) for clip in test.clips]
        repeatable = [trial for trial in part if test.clip(trial.clips[0]).probe is None]
        trials += _shuffled(part, repeatable, test.num_repeats, rng)
    return tuple(trials)


def _pairs(test: ListeningTest, rng: random.Random) -> list[Trial]:
    names = tuple(axis.name for axis in test.axes)
    trials = []
    for first, second in _neighbours(test.clips):
        sides = [first.id, second.id]
        rng.shuffle(sides)
        trials.append(Trial(axes=names, clips=tuple(sides)))
    return _shuffled(trials, trials, test.num_repeats, rng)


def _neighbours(clips: Sequence[BlindClip]) -> list[tuple[BlindClip, BlindClip]]:
    """Every pair of systems on every prompt."""
    ordered = sorted(clips, key=lambda clip: (clip.name, clip.system))
    groups = (list(group) for _, group in groupby(ordered, key=lambda clip: clip.name))
    return [pair for group in groups for pair in combinations(group, 2)]


def _shuffled(
    trials: Sequence[Trial], repeatable: Sequence[Trial], num_repeats: int, rng: random.Random
) -> list[Trial]:
    """Shuffle, and put repeats into the second half, each after the first hearing of it.

    The sides of a repeated pair are swapped, so that whoever always takes the left is found out.
    """
    order = list(trials)
    rng.shuffle(order)
    early = [trial for trial in order[: (len(order) + 1) // 2] if trial in repeatable]
    again = rng.sample(early, min(num_repeats, len(early)))
    for trial in again:
        repeat = trial.model_copy(update={"clips": trial.clips[::-1], "is_repeat": True})
        earliest = max(order.index(trial) + 1, (len(order) + 1) // 2)
        order.insert(rng.randint(earliest, len(order)), repeat)
    return order
