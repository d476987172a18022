"""Benchmarks are scripts beside the package: make them importable, and a corpus to judge by."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

RATE_HZ = 44_100
CLASSES = {"low hum": 200.0, "high beep": 3000.0, "hiss": 0.0}
NUM_TRAIN, NUM_HELD = 12, 2


def sound_of(label: str, number: int) -> np.ndarray:
    """Half a second of a class; each number sounds a little different."""
    chance = np.random.default_rng(number)
    noise = chance.normal(size=RATE_HZ // 2)
    if label == "hiss":
        return (0.2 * noise).astype(np.float32)
    time_s = np.arange(len(noise)) / RATE_HZ
    tone = np.sin(2 * np.pi * CLASSES[label] * chance.uniform(0.9, 1.1) * time_s)
    return (0.4 * tone + 1e-3 * noise).astype(np.float32)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of three classes that anyone can tell apart, in the layout of the real one."""
    folder = tmp_path_factory.mktemp("corpus")
    rows, samples, position = [], [], 0
    for label in CLASSES:
        for number in range(NUM_TRAIN + NUM_HELD):
            sound = sound_of(label, number)
            row = {"id": f"{label}-{number}", "label": label, "captions": [f"a {label}"]}
            row |= {"split": "train" if number < NUM_TRAIN else "test", "group": row["id"]}
            rows.append(row | {"shard": "000.wav", "start": position, "frames": len(sound)})
            samples.append(sound)
            position += len(sound)
    (folder / "shards").mkdir()
    soundfile.write(folder / "shards/000.wav", np.concatenate(samples), RATE_HZ)
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of judges for all tests that train the same one."""
    return tmp_path_factory.mktemp("cache")
