"""A judge that reads no text: 0 for a sound that can be heard, less for one that hardly can.

It stands beside a judge that may be bought by saying nothing, with an advantage of its own
(`advantage.combine: gdpo`): where all takes of a prompt can be heard it says 0 of each, and only
the other judge counts.

The limits are what recordings keep: of 433 held-out clips of nano's corpus, cut or padded to five
seconds, 5 % sound for less than 0.3 s, 1 % are quieter than −37.6 LUFS, and 1 % have more than
0.05 % of their samples at full scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from resonate_audio.audio.loudness import loudness_lufs
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.base import in_thread, make_rewards
from resonate_audio.rewards.detectors import clipped_share, silent_share

LEAST_S = 0.3
"""Time that is not silence."""
LEAST_LUFS, ROOM_LU = -38.0, 12.0
"""Loudness, and how far below it everything is lost."""
MOST_CLIPPED, ALL_CLIPPED = 0.0005, 0.01
"""Share of samples at full scale, and the share where everything is lost."""


class GuardReward:
    """Minus what is missing: time, loudness and headroom, each from 0 to 1."""

    name = "guard"

    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        """Measure each row; the texts are not read."""
        parts = await in_thread(lambda: missing(audio))
        total = -torch.stack(list(parts.values())).sum(dim=0)
        return make_rewards(total, self.name, len(prompts), parts)


def missing(audio: Waveform) -> dict[str, Float64[Tensor, " row"]]:
    """What each row lacks: ``time``, ``loudness`` and ``headroom``, 0 where there is enough."""
    duration_s = audio.samples.shape[1] / audio.sample_rate_hz
    least_s = min(LEAST_S, duration_s)
    active_s = (1 - silent_share(audio)) * duration_s
    loudness = loudness_lufs(audio.samples, audio.sample_rate_hz)
    clipped = (clipped_share(audio) - MOST_CLIPPED) / (ALL_CLIPPED - MOST_CLIPPED)
    return {
        "time": (1 - active_s / least_s).clamp(0, 1),
        "loudness": ((LEAST_LUFS - loudness) / ROOM_LU).clamp(0, 1),
        "headroom": clipped.clamp(0, 1),
    }
