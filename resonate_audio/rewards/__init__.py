"""Judges that hear a sound and say how well it answers its text; they know no generator."""

from resonate_audio.rewards.best import best_take
from resonate_audio.rewards.catalogue import (
    JUDGES,
    JudgeSpec,
    open_judge,
    open_reward,
    parse_spec,
    short_labels,
)

__all__ = [
    "JUDGES",
    "JudgeSpec",
    "best_take",
    "open_judge",
    "open_reward",
    "parse_spec",
    "short_labels",
]
