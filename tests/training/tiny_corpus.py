"""A few short sounds, and a model small enough to train on them in a second: see nano-flow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from resonate_audio.data.manifest import Clip
from resonate_audio.data.waveforms import WaveformSet

RATE_HZ = 16_000
TINY_MODEL = {
    "vae": {
        "kind": "conv",
        "num_bands": 40,
        "latent_channels": 4,
        "hidden": 8,
        "down_levels": [0, 1],
    },
    "vocoder": {
        "sample_rate_hz": RATE_HZ,
        "num_bands": 40,
        "mel_n_fft": 1024,
        "hop_samples": 256,
        "n_fft": 512,
        "dim": 16,
        "mlp_dim": 16,
        "dilations": [1],
        "num_sines": 30,
    },
    "mel": {
        "sample_rate_hz": RATE_HZ,
        "n_fft": 1024,
        "hop_samples": 256,
        "num_bands": 40,
        "max_hz": RATE_HZ / 2,
        "log": "ln",
    },
    "transformer": {
        "latent_channels": 4,
        "hidden": 32,
        "num_heads": 2,
        "num_joint_blocks": 1,
        "num_single_blocks": 1,
        "data_std": None,
    },
}
CLIPS = (("a low hum", 110, 0.4), ("a high whistle", 1760, 0.4), ("a long tone", 440, 0.9))


def write_corpus(folder: Path) -> Path:
    """Write three tones of 0.4, 0.4 and 0.9 s and their manifest."""
    lines = []
    for number, (caption, pitch_hz, duration_s) in enumerate(CLIPS):
        times = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
        soundfile.write(
            folder / f"{number}.wav", 0.5 * np.sin(2 * np.pi * pitch_hz * times), RATE_HZ
        )
        lines.append(
            {
                "audio_id": f"clip-{number}",
                "audio_path": f"{number}.wav",
                "caption": caption,
                "duration": duration_s,
            }
        )
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def tones(num_clips: int = 3, num_samples: int = 6000) -> WaveformSet:
    """Clips of one tone each: 300 Hz, 600 Hz, …."""
    times = np.arange(num_samples) / 16_000
    waves = [0.5 * np.sin(2 * np.pi * 300 * (i + 1) * times) for i in range(num_clips)]
    samples = (np.concatenate(waves) * 32767).astype(np.int16)
    starts = np.arange(num_clips) * num_samples
    lengths = np.full(num_clips, num_samples)
    clips = tuple(Clip(audio_id=str(i), audio_path="x", caption="x") for i in range(num_clips))
    return WaveformSet(samples, starts, lengths, clips, (), 16_000, "test")


def write_recipe(path: Path, values: dict[str, Any]) -> Path:
    """Write a recipe file."""
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
