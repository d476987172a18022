"""A corpus of a few short sounds and recipes of models small enough to train in a second."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

RATE_HZ = 16_000
TINY_MODEL = {
    "vae": {"latent_channels": 4, "hidden": 8},
    "vocoder": {"dim": 16, "num_layers": 1, "mlp_dim": 16, "num_refine": 0},
    "transformer": {
        "latent_channels": 4,
        "hidden": 32,
        "num_heads": 2,
        "num_joint_blocks": 1,
        "num_single_blocks": 1,
    },
}
CLIPS = (("a low hum", 110, 0.4), ("a high whistle", 1760, 0.4), ("a long tone", 440, 0.9))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three tones of 0.4, 0.4 and 0.9 s with captions."""
    lines = []
    for number, (caption, pitch_hz, duration_s) in enumerate(CLIPS):
        times = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
        soundfile.write(
            tmp_path / f"{number}.wav", 0.5 * np.sin(2 * np.pi * pitch_hz * times), RATE_HZ
        )
        lines.append(
            {
                "audio_id": f"clip-{number}",
                "audio_path": f"{number}.wav",
                "caption": caption,
                "duration": duration_s,
            }
        )
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def settings(tmp_path: Path, manifest: Path) -> dict[str, Any]:
    """What the recipes of all three trainers have in common."""
    return {
        "preset": "nano",
        "model": TINY_MODEL,
        "data": {"manifest": str(manifest), "cache": str(tmp_path / "cache")},
        "optim": {"learning_rate": 1e-3, "warmup_steps": 2},
        "run": {
            "output": str(tmp_path / "run"),
            "num_steps": 6,
            "device": "cpu",
            "save_every": 3,
            "log_every": 1,
            "plot_every": 100,
        },
    }


def write_recipe(path: Path, values: dict[str, Any]) -> Path:
    """Write a recipe file."""
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
