"""Seconds to latent frames."""

from __future__ import annotations

import math


def num_latent_frames(duration_s: float, sample_rate_hz: int, frame_samples: int) -> int:
    """Fewest latent frames that hold ``duration_s``: ⌈duration · rate / samples per frame⌉.

    10 s at 44.1 kHz with 1,024 samples a frame are 431 frames, 441,344 samples.
    """
    return math.ceil(duration_s * sample_rate_hz / frame_samples)
