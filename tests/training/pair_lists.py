"""Lists of pairs with sounds, for tests."""

import json
from pathlib import Path

import numpy as np

from resonate_audio.audio.io import write_audio
from resonate_audio.core.types import Audio

RATE_HZ = 8000
PROMPTS = ("dog", "rain", "bell")


def tone(frequency_hz: float, seconds: float = 0.5) -> Audio:
    """What people want to hear."""
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return Audio((0.3 * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32), RATE_HZ)


def noise(seed: int, seconds: float = 0.5) -> Audio:
    """What they do not."""
    normals = np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))
    return Audio((0.2 * normals).clip(-1, 1).astype(np.float32), RATE_HZ)


def write_pairs(folder: Path) -> Path:
    """Three pairs of a tone and a noise, in the form that a listening test is exported in."""
    (folder / "clips").mkdir(parents=True)
    lines = []
    for number, prompt in enumerate(PROMPTS):
        write_audio(folder / "clips" / f"w{number}.wav", tone(300 + 200 * number))
        write_audio(folder / "clips" / f"l{number}.wav", noise(number))
        files = {"chosen": f"clips/w{number}.wav", "rejected": f"clips/l{number}.wav"}
        lines.append({"prompt": prompt, **files, "margin": 0.5, "num_raters": 4})
    path = folder / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path
