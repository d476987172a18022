"""Tests of listeners that other tests listen to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from resonate_audio.core.types import Audio
from resonate_audio.serving.listening.answers import Answers
from resonate_audio.serving.listening.test import Design, GivenClip, ListeningTest, create_test

RATE_HZ = 8000
INSTANT_S = 0.05
"""Shorter than what browsers are allowed to be early by: such a clip is heard at once."""


def tone(frequency_hz: float, seconds: float = INSTANT_S) -> Audio:
    times = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return Audio((0.3 * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32), RATE_HZ)


def given_clips(
    systems: tuple[str, ...] = ("alpha", "beta"), num_prompts: int = 3, seconds: float = INSTANT_S
) -> list[GivenClip]:
    return [
        GivenClip(system, f"p{n}", f"a sound of {n}", tone(200 + 100 * n + 17 * row, seconds))
        for row, system in enumerate(systems)
        for n in range(num_prompts)
    ]


def make_test(
    place: Path, design: Design | None = None, given: list[GivenClip] | None = None
) -> tuple[Path, ListeningTest, Answers]:
    folder = place / "trees"
    test = create_test(folder, design or Design(num_repeats=1), given or given_clips())
    return folder, test, Answers(folder, test)


def rate_everything(answers: Answers, token: str, score_of: dict[str, int]) -> None:
    """Answer all pages: a system's score, or the system with the higher one."""
    for number, trial in enumerate(answers.rater(token).trials):
        clips = [answers.hear(token, number, side) for side in range(len(trial.clips))]
        scores = [score_of[clip.system] for clip in clips]
        if answers.test.compares:
            choice = "A" if scores[0] > scores[1] else "B"
            answers.submit(token, number, {}, choice, ms=2000.0)
        else:
            answers.submit(token, number, dict.fromkeys(trial.axes, scores[0]), None, ms=2000.0)
