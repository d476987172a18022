"""Encode every clip and every caption once, and keep them on disk.

The official trainer computes mel, VAE and text encoder again in every step; here a step touches
the flow transformer alone. What is stored is the posterior (mean and deviation), so latents are
still sampled anew each time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.config import FrozenConfig, NameInside, parse_config
from resonate_audio.core.documents.json_text import read_object
from resonate_audio.core.errors import ConfigError, TrainingError
from resonate_audio.core.files import atomic_path
from resonate_audio.core.progress import told
from resonate_audio.core.types import TextFeatures
from resonate_audio.data.latents import (
    CaptionTable,
    LatentBucket,
    LatentSet,
    join_captions,
    pack_captions,
)
from resonate_audio.data.waveforms import WaveformSet
from resonate_audio.model.checkpoint import read_weights, save_tensors
from resonate_audio.model.linear_vae import AnyVAE

Say = Callable[[str], None]
ItemT = TypeVar("ItemT")
ROWS_PER_CALL = 32


@runtime_checkable
class EncodesText(Protocol):
    """The part of a text encoder that the cache needs."""

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """Features of each text."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a clip that one window holds."""

    clip: int
    start: int
    num_samples: int


class LatentIndex(FrozenConfig):
    """The files of a cache of latents."""

    windows: tuple[NameInside, ...]


def window_frames(window_s: Sequence[float], frame_samples: int, rate_hz: int) -> list[int]:
    """Latent frames of each window, rounded up, shortest first.

    Raises:
        ConfigError: there is no window.
    """
    if not window_s:
        raise ConfigError("data.window_s is empty: expected at least one length in seconds")
    return sorted({-(-round(length * rate_hz) // frame_samples) for length in window_s})


def place_clips(lengths: Sequence[int], window_samples: Sequence[int]) -> list[list[Piece]]:
    """Put each clip into the shortest window that holds it.

    A clip longer than every window becomes pieces of the longest one, evenly spaced from its
    beginning to its end, so that all of it is heard.

    Returns:
        The pieces of each window.
    """
    windows: list[list[Piece]] = [[] for _ in window_samples]
    longest = window_samples[-1]
    for clip, length in enumerate(lengths):
        if length <= longest:
            home = next(i for i, size in enumerate(window_samples) if length <= size)
            windows[home].append(Piece(clip, 0, length))
            continue
        starts = np.linspace(0, length - longest, -(-length // longest)).round().astype(int)
        windows[-1] += [Piece(clip, int(start), longest) for start in starts]
    return windows


def cached_latents(
    waves: WaveformSet,
    vae: AnyVAE,
    mel: MelFrontEnd,
    window_s: Sequence[float],
    folder: Path,
    say: Say,
) -> list[dict[str, Tensor]]:
    """Posteriors of every piece, one table per window that holds any, encoded or read from disk.

    Each table holds mean and std (piece, frame, channel) in half precision, ``clip`` and
    ``num_real_frames`` (piece).
    """
    if not (folder / "index.json").exists():
        say(f"encoding {len(waves.clips)} clips into {folder}")
        frame_samples = vae.hops_per_frame * mel.config.hop_samples
        frames = window_frames(window_s, frame_samples, waves.sample_rate_hz)
        placed = place_clips(waves.lengths.tolist(), [n * frame_samples for n in frames])
        names = []
        for num_frames, window in zip(frames, placed, strict=True):
            if window:
                table = encode_window(waves, window, vae, mel, num_frames, say)
                names.append(f"window-{num_frames}.safetensors")
                with atomic_path(folder / names[-1]) as temporary:
                    save_tensors(table, temporary, {})
        with atomic_path(folder / "index.json") as temporary:
            temporary.write_text(json.dumps({"windows": names}), encoding="utf-8")
    path = folder / "index.json"
    index = parse_config(LatentIndex, read_object(path, TrainingError), str(path), TrainingError)
    return [read_weights(folder / name) for name in index.windows]


@torch.no_grad()
def encode_window(
    waves: WaveformSet,
    window: Sequence[Piece],
    vae: AnyVAE,
    mel: MelFrontEnd,
    num_frames: int,
    say: Say,
) -> dict[str, Tensor]:
    """Encode the pieces of one window; the silence after a short clip is encoded with it."""
    frame_samples = vae.hops_per_frame * mel.config.hop_samples
    device = next(iter(vae.buffers())).device
    means, stds = [], []
    for part in _parts(window, say):
        wave = torch.stack([waves.wave(p.clip, p.start, num_frames * frame_samples) for p in part])
        posterior = vae.encode(mel(wave.to(device)))
        means.append(posterior.mean.half().cpu())
        stds.append(posterior.std.half().cpu())
    return {
        "mean": torch.cat(means),
        "std": torch.cat(stds),
        "clip": torch.tensor([piece.clip for piece in window]),
        "num_real_frames": torch.tensor([-(-p.num_samples // frame_samples) for p in window]),
    }


def cached_captions(
    texts: Sequence[str], encoder: EncodesText, folder: Path, num_tokens: int, say: Say
) -> CaptionTable:
    """Features of each text, encoded or read from disk."""
    path = folder / "captions.safetensors"
    if not path.exists():
        say(f"encoding {len(texts)} captions into {folder}")
        table = encode_captions(texts, encoder, say)
        tensors = {
            "tokens": table.tokens,
            "starts": table.starts,
            "lengths": table.lengths,
            "pooled": table.pooled,
        }
        with atomic_path(path) as temporary:
            save_tensors(tensors, temporary, {})
    return CaptionTable(**read_weights(path), num_tokens=num_tokens)


def encode_captions(
    texts: Sequence[str], encoder: EncodesText, say: Say = lambda text: None
) -> CaptionTable:
    """Encode texts, those of similar length together, and give them in their own order."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    tables = []
    for part in _parts(order, say):
        features = encoder.encode([texts[index] for index in part])
        tables.append(pack_captions(TextFeatures(features.tokens.cpu(), features.pooled.cpu())))
    table = join_captions(tables)
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return CaptionTable(
        table.tokens, table.starts[back], table.lengths[back], table.pooled[back], table.num_tokens
    )


def all_captions(waves: WaveformSet) -> list[str]:
    """Every distinct caption, after the empty prompt, which is number 0."""
    found = {caption for clip in waves.clips for caption in clip.all_captions()}
    return ["", *sorted(found - {""})]


def make_latent_set(
    windows: Sequence[dict[str, Tensor]], waves: WaveformSet, captions: CaptionTable
) -> LatentSet:
    """Join the encoded windows with the numbers of their clips' captions."""
    numbers = {text: number for number, text in enumerate(all_captions(waves))}
    of_clip = [[numbers[text] for text in clip.all_captions()] for clip in waves.clips]
    table, counts = pad_lists(of_clip)
    buckets = tuple(
        LatentBucket(
            window["mean"],
            window["std"],
            window["num_real_frames"],
            table[window["clip"]],
            counts[window["clip"]],
        )
        for window in windows
    )
    return LatentSet(buckets, captions)


def pad_lists(
    lists: Sequence[Sequence[int]],
) -> tuple[Int[Tensor, "list place"], Int[Tensor, " list"]]:
    """Lists of numbers as a table padded with zeros, and their lengths."""
    counts = torch.tensor([len(numbers) for numbers in lists])
    table = torch.zeros(len(lists), int(counts.max()), dtype=torch.long)
    for row, numbers in enumerate(lists):
        table[row, : len(numbers)] = torch.tensor(numbers)
    return table, counts


def cache_key(*parts: str) -> str:
    """Short name of everything that an encoding depends on; a part may hold line feeds."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _parts(items: Sequence[ItemT], say: Say) -> Iterator[Sequence[ItemT]]:
    starts = range(0, len(items), ROWS_PER_CALL)
    for start in told(starts, len(starts), say):
        yield items[start : start + ROWS_PER_CALL]
