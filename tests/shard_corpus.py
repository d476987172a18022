"""Shards of a few made-up clips, written in milliseconds."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import save

from resonate_audio.data.shards.write import (
    EMPTY,
    LatentSettings,
    Sample,
    ShardIndex,
    ShardSettings,
    write_index,
    write_shard,
)
from resonate_audio.model.checkpoint import save_tensors

CHANNELS, DIM, RATE_HZ = 3, 4, 8000
LATENTS = LatentSettings(
    model="none",
    vae="0",
    text_encoder="0",
    window_frames=(4, 8),
    frame_samples=512,
    channels=CHANNELS,
    num_tokens=5,
    text_dim=DIM,
)


def make_sample(number: int, num_frames: int, sizes: LatentSettings = LATENTS) -> Sample:
    """A clip whose mean is its number everywhere, with one or two captions."""
    captions = 1 + number % 2
    latents = {
        "mean": torch.full((num_frames, sizes.channels), float(number)).half(),
        "std": torch.zeros(num_frames, sizes.channels).half(),
        "num_real_frames": torch.tensor(num_frames - 1),
    }
    text = {
        "tokens": torch.full((2 * captions, sizes.text_dim), float(number)).half(),
        "lengths": torch.full((captions,), 2),
        "pooled": torch.full((captions, sizes.text_dim), float(number)).half(),
    }
    members = {
        "latents.safetensors": save(latents),
        "text.safetensors": save(text),
        "json": json.dumps({"audio_id": f"clip-{number}"}).encode(),
    }
    return Sample(f"{number:06d}", members, num_frames, num_frames * 0.064)


def write_shards(
    folder: Path,
    sizes: Sequence[int],
    frames: Sequence[int] = (4, 8, 4),
    latents: LatentSettings = LATENTS,
    rate_hz: int = RATE_HZ,
) -> Path:
    """Shards of so many clips each, numbered through; their lengths repeat."""
    entries, tables, number = [], [], 0
    for shard, size in enumerate(sizes):
        numbers = range(number, number + size)
        samples = [make_sample(n, frames[n % len(frames)], latents) for n in numbers]
        entry, table = write_shard(folder / f"shard-{shard:06d}.tar", samples)
        entries.append(entry)
        tables.append(table)
        number += size
    empty = {
        "tokens": torch.zeros(1, latents.text_dim).half(),
        "lengths": torch.tensor([1]),
        "pooled": torch.zeros(1, latents.text_dim).half(),
    }
    save_tensors(empty, folder / EMPTY, {})
    settings = ShardSettings(
        kind="latents", sample_rate_hz=rate_hz, manifest="0", clips_per_shard=9, latents=latents
    )
    index = ShardIndex(
        settings=settings,
        num_samples=number,
        seconds=1.0,
        samples_sha256="",
        latent_mean=(0.0,) * latents.channels,
        latent_std=(1.0,) * latents.channels,
        shards=tuple(entries),
    )
    write_index(folder, index, tables)
    return folder


def write_sounds(folder: Path, durations_s: Sequence[float]) -> Path:
    """Tones and their manifest; clip 1 has two captions where there are so many."""
    lines = []
    for number, duration_s in enumerate(durations_s):
        times = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
        wave = 0.4 * np.sin(2 * np.pi * 200 * (number + 1) * times)
        soundfile.write(folder / f"{number}.wav", wave, RATE_HZ)
        line = {"audio_id": f"clip-{number}", "audio_path": f"{number}.wav", "caption": "dog"}
        lines.append(line | ({"captions": ["rain wind"]} if number == 1 else {}))
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
