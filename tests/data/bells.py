"""Sounds that no two seeds share."""

import numpy as np

RATE_HZ = 44_100


def bells(seed: int, seconds: float = 3.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Struck bells over wind: partials that decay, and noise that swells."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    swell = 1 + np.sin(2 * np.pi * time_s * rng.random())
    sound = 0.05 * rng.standard_normal(len(time_s)) * swell
    for _ in range(8):
        since = time_s - rng.uniform(0, 0.8 * seconds)
        for partial in rng.uniform(200, 6000, size=3):
            decay = np.exp(-np.maximum(since, 0) * rng.uniform(2, 12)) * (since > 0)
            sound += 0.2 * decay * np.sin(2 * np.pi * partial * since)
    return (0.7 * sound / np.abs(sound).max()).astype(np.float32)
