"""What makes one shard: clips in, posteriors and text features or compressed sound out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32
from pydantic import Field
from safetensors.torch import save

from resonate_audio.audio.io import FLAC_16, encode_audio
from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.documents.text import BYTE_ORDER_MARK
from resonate_audio.core.errors import AudioError
from resonate_audio.core.files import atomic_path, open_regular
from resonate_audio.core.threads import cpu_threads
from resonate_audio.core.types import Audio
from resonate_audio.data.latent_cache import (
    ROWS_PER_CALL,
    encode_captions,
    place_clips,
    window_frames,
)
from resonate_audio.data.latents import CaptionTable
from resonate_audio.data.manifest import (
    Clip,
    Manifest,
    decode_clips,
    parse_line,
)
from resonate_audio.data.shards.write import (
    LatentSettings,
    Members,
    Sample,
    ShardEntry,
    write_shard,
)
from resonate_audio.model.checkpoint import fingerprint_weights
from resonate_audio.model.folder import read_config, read_part
from resonate_audio.model.hub import find_model, find_text_encoder
from resonate_audio.model.text_encoder import TextEncoder

ItemT = TypeVar("ItemT")
Wave = Float32[np.ndarray, "_"]
Heard = tuple[Clip, Wave]
PARTS = "parts"
"""Folder of what is known of finished shards until the index is written."""


class EncodeConfig(FrozenConfig):
    """How clips become shards of latents."""

    model: str = "nano"
    """Bundled name, folder or hub id of the model whose VAE and text encoder are used."""
    window_s: tuple[float, ...] = Field((10.0,), min_length=1)
    """Lengths that clips are padded to; each clip takes the shortest that holds it."""
    clips_per_shard: int = Field(1000, ge=1, le=10_000_000)
    device: str = "cpu"
    num_threads: int = Field(1, ge=1, le=4_096)
    """CPU threads of one worker; another number may round sums differently."""


class AudioConfig(FrozenConfig):
    """How clips become shards of sound."""

    sample_rate_hz: int = Field(16_000, ge=1000, le=1_000_000)
    clips_per_shard: int = Field(1000, ge=1, le=10_000_000)


@dataclass(frozen=True)
class Job:
    """The lines of a manifest that make up one shard."""

    number: int
    manifest: Path
    start_byte: int
    first_line: int
    num_lines: int
    folder: Path

    def __str__(self) -> str:
        last = self.first_line + self.num_lines - 1
        return f"{self.shard.name} ({self.manifest}, lines {self.first_line} to {last})"

    @property
    def shard(self) -> Path:
        """The tar file."""
        return self.folder / f"shard-{self.number:06d}.tar"

    @property
    def part(self) -> Path:
        """What the index will need to know of it; there when the shard is."""
        return self.folder / PARTS / f"{self.number:06d}.json"

    def clips(self) -> Iterator[Clip]:
        """Read the lines.

        Raises:
            ManifestError: one is not what it was when the job was made.
        """
        with open_regular(self.manifest) as file:
            file.seek(self.start_byte)
            for number, line in enumerate(islice(file, self.num_lines), start=self.first_line):
                text = line.removeprefix(BYTE_ORDER_MARK).decode("utf-8", errors="replace")
                if text.strip():
                    yield parse_line(text, f"{self.manifest}:{number}")

    def part_of_manifest(self) -> Manifest:
        """The clips of the lines, and where their sounds are.

        Raises:
            ManifestError: a line is not what it was when the job was made.
        """
        return Manifest(self.manifest, tuple(self.clips()))


class ShardPart(FrozenConfig):
    """What the index needs to know of one shard."""

    entry: ShardEntry
    samples: tuple[tuple[int, int, int, float, int], ...]
    broken: tuple[tuple[str, str], ...]
    latent_sum: tuple[float, ...] = ()
    latent_square_sum: tuple[float, ...] = ()
    sounds: str = ""
    """`Manifest.fingerprint` of its clips when it was begun; an older version wrote none."""
    content: str = ""
    """`Manifest.content` of its clips."""


@dataclass
class Moments:
    """Sums over the latents of a shard, in double precision."""

    first: list[np.ndarray] = field(default_factory=list)
    second: list[np.ndarray] = field(default_factory=list)

    def add(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Add latents of some clips: Σ μ and Σ μ² + σ² per channel."""
        mean, std = mean.double(), std.double()
        self.first.append(mean.sum((0, 1)).numpy())
        self.second.append((mean**2 + std**2).sum((0, 1)).numpy())

    def sums(self) -> tuple[list[float], list[float]]:
        """Both sums per channel."""
        if not self.first:
            return [], []
        return np.sum(self.first, axis=0).tolist(), np.sum(self.second, axis=0).tolist()


class LatentWorker:
    """VAE and text encoder of a model: clips to posteriors and text features."""

    def __init__(self, config: EncodeConfig) -> None:
        """Load them.

        Raises:
            ResonateError: there is no such model, or its weights cannot be read.
        """
        folder = find_model(config.model)
        self.model_config = read_config(folder)
        self.config = config
        self.device = torch.device(config.device)
        self.vae = read_part(folder, self.model_config, "vae")
        self.vae = self.vae.to(self.device).requires_grad_(False)
        self.mel = MelFrontEnd(self.model_config.mel).to(self.device)
        text = self.model_config.text_encoder
        encoder = TextEncoder.from_folder(text, find_text_encoder(text, folder, False))
        self.encoder = encoder.to(self.device).eval()
        self.frame_samples = self.model_config.frame_samples
        self.frames = window_frames(config.window_s, self.frame_samples, self.sample_rate_hz)

    @property
    def sample_rate_hz(self) -> int:
        """The model's."""
        return self.model_config.mel.sample_rate_hz

    def settings(self) -> LatentSettings:
        """What the latents are made with."""
        return LatentSettings(
            model=self.model_config.name,
            vae=fingerprint_weights([self.vae.state_dict()]),
            text_encoder=fingerprint_weights(self.encoder.states()),
            window_frames=tuple(self.frames),
            frame_samples=self.frame_samples,
            channels=self.model_config.transformer.latent_channels,
            num_tokens=self.model_config.text_encoder.num_tokens,
            text_dim=self.model_config.text_encoder.dim,
        )

    def empty_prompt(self) -> dict[str, torch.Tensor]:
        """Text features of the empty prompt."""
        table = encode_captions([""], self.encoder)
        return {"tokens": table.tokens, "lengths": table.lengths, "pooled": table.pooled}

    @torch.no_grad()
    def samples(self, heard: Iterable[Heard], job: Job, moments: Moments) -> Iterator[Sample]:
        """Encode some clips together, window by window, then the next ones."""
        count = 0
        for some in chunks(heard, ROWS_PER_CALL):
            texts = list(dict.fromkeys(text for clip, _ in some for text in clip.all_captions()))
            table = encode_captions(texts, self.encoder)
            rows = {text: row for row, text in enumerate(texts)}
            for clip, window, latents in self._encode(some, moments):
                key = f"{job.number:06d}-{count:06d}"
                text = text_features(table, [rows[caption] for caption in clip.all_captions()])
                seconds = min(int(latents["num_real_frames"]) * self.frame_samples, window)
                seconds_s = seconds / self.sample_rate_hz
                members = {
                    "latents.safetensors": save(latents),
                    "text.safetensors": save(text),
                    "json": describe(clip),
                }
                yield Sample(key, members, len(latents["mean"]), seconds_s)
                count += 1

    def _encode(
        self, some: Sequence[Heard], moments: Moments
    ) -> Iterator[tuple[Clip, int, dict[str, torch.Tensor]]]:
        placed = place_clips(
            [len(wave) for _, wave in some], [n * self.frame_samples for n in self.frames]
        )
        for num_frames, pieces in zip(self.frames, placed, strict=True):
            for part in chunks(pieces, ROWS_PER_CALL):
                waves = np.zeros((len(part), num_frames * self.frame_samples), np.float32)
                for row, piece in enumerate(part):
                    end = piece.start + piece.num_samples
                    waves[row, : piece.num_samples] = some[piece.clip][1][piece.start : end]
                posterior = self.vae.encode(self.mel(torch.from_numpy(waves).to(self.device)))
                mean, std = posterior.mean.half().cpu(), posterior.std.half().cpu()
                moments.add(mean, std)
                for row, piece in enumerate(part):
                    real = -(-piece.num_samples // self.frame_samples)
                    latents = {
                        "mean": mean[row].contiguous(),
                        "std": std[row].contiguous(),
                        "num_real_frames": torch.tensor(real),
                    }
                    yield some[piece.clip][0], piece.num_samples, latents


class AudioWorker:
    """Clips to FLAC of 16 bits, at one rate and in one channel."""

    def __init__(self, config: AudioConfig) -> None:
        self.config = config

    @property
    def sample_rate_hz(self) -> int:
        """The recipe's."""
        return self.config.sample_rate_hz

    def samples(self, heard: Iterable[Heard], job: Job, moments: Moments) -> Iterator[Sample]:
        """Compress clip by clip."""
        for count, (clip, wave) in enumerate(heard):
            sound = Audio(np.clip(wave, -1.0, 1.0), self.sample_rate_hz)
            members: Members = {"flac": encode_audio(sound, FLAC_16), "json": describe(clip)}
            key = f"{job.number:06d}-{count:06d}"
            yield Sample(key, members, len(wave), len(wave) / self.sample_rate_hz)


Worker = LatentWorker | AudioWorker


def describe(clip: Clip) -> bytes:
    """What the manifest says of a clip."""
    return clip.model_dump_json(exclude_defaults=True).encode()


def text_features(table: CaptionTable, rows: Sequence[int]) -> dict[str, torch.Tensor]:
    """Features of some captions of a table, one after the other."""
    spans = [(int(table.starts[row]), int(table.lengths[row])) for row in rows]
    return {
        "tokens": torch.cat([table.tokens[start : start + size] for start, size in spans]),
        "lengths": torch.tensor([size for _, size in spans]),
        "pooled": table.pooled[list(rows)],
    }


def run_job(worker: Worker, job: Job) -> tuple[int, int]:
    """Write one shard and what the index needs to know of it.

    Returns:
        How many samples were written and how many clips were broken.

    Raises:
        OutputError: a file cannot be written.
    """
    broken: list[tuple[str, str]] = []
    moments, manifest = Moments(), job.part_of_manifest()
    sounds, content = manifest.fingerprint(), manifest.content()
    heard = listen(manifest, worker.sample_rate_hz, broken)
    entry, table = write_shard(job.shard, worker.samples(heard, job, moments))
    first, second = moments.sums()
    part = ShardPart(
        entry=entry,
        samples=tuple(tuple(row) for row in table.tolist()),
        broken=tuple(broken),
        latent_sum=tuple(first),
        latent_square_sum=tuple(second),
        sounds=sounds,
        content=content,
    )
    with atomic_path(job.part) as temporary:
        temporary.write_text(part.model_dump_json(), encoding="utf-8")
    return len(table), len(broken)


def listen(
    manifest: Manifest, sample_rate_hz: int, broken: list[tuple[str, str]]
) -> Iterator[Heard]:
    """Decode clips; those that cannot be used go to ``broken``."""
    for clip, wave in decode_clips(manifest, sample_rate_hz):
        if isinstance(wave, AudioError):
            broken.append((clip.audio_id, str(wave)))
        else:
            yield clip, wave


class JobRunner:
    """A worker with the number of threads it shall use; made anew in each process."""

    def __init__(self, config: EncodeConfig | AudioConfig) -> None:
        self.config = config
        self.worker: Worker | None = None

    def __call__(self, job: Job) -> tuple[int, int]:
        """Run one job."""
        with cpu_threads(getattr(self.config, "num_threads", 1)):
            if self.worker is None:
                self.worker = make_worker(self.config)
            return run_job(self.worker, job)


def make_worker(config: EncodeConfig | AudioConfig) -> Worker:
    """What makes the samples."""
    return LatentWorker(config) if isinstance(config, EncodeConfig) else AudioWorker(config)


def chunks(items: Iterable[ItemT], size: int) -> Iterator[list[ItemT]]:
    """Lists of ``size`` items, the last one shorter."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some
