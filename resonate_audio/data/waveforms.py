"""Every clip decoded once, at the model's rate, 16 bits a sample, mapped from disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Int16, Int64
from torch import Tensor

from resonate_audio.core.config import FrozenConfig, parse_config
from resonate_audio.core.documents.json_text import read_object
from resonate_audio.core.errors import AudioError, TrainingError
from resonate_audio.core.files import atomic_path
from resonate_audio.core.progress import told
from resonate_audio.data.manifest import BrokenClip, Clip, Manifest, decode_clips

FULL_SCALE = 32767.0
NAMES_SHOWN = 20
HASHED_TOGETHER = 1 << 22


@dataclass(frozen=True)
class WaveformSet:
    """Decoded clips one after the other, and those that could not be decoded."""

    samples: Int16[np.ndarray, " sample"]
    starts: Int64[np.ndarray, " clip"]
    lengths: Int64[np.ndarray, " clip"]
    clips: tuple[Clip, ...]
    broken: tuple[BrokenClip, ...]
    sample_rate_hz: int
    fingerprint: str
    """Of the manifest they come from."""

    def wave(self, clip: int, start: int, num_samples: int) -> Float[Tensor, " sample"]:
        """Part of a clip in [-1, 1], followed by digital silence where the clip has ended."""
        begin = int(self.starts[clip]) + start
        end = min(begin + num_samples, int(self.starts[clip] + self.lengths[clip]))
        part = torch.from_numpy(self.samples[begin:end].astype(np.float32) / FULL_SCALE)
        return torch.nn.functional.pad(part, (0, num_samples - len(part)))

    def content(self) -> str:
        """Changes with a sample of a clip or a word about it, and with nothing else."""
        digest = hashlib.sha256()
        for clip in self.clips:
            digest.update(
                clip.model_dump_json(include={"audio_id", "caption", "captions"}).encode()
            )
        digest.update(self.starts.tobytes() + self.lengths.tobytes())
        for start in range(0, len(self.samples), HASHED_TOGETHER):
            digest.update(self.samples[start : start + HASHED_TOGETHER].tobytes())
        return digest.hexdigest()[:16]


class WaveformIndex(FrozenConfig):
    """What `decode_into` says of its file of samples."""

    kept: tuple[tuple[str, int, int], ...]
    """Name, first sample and number of samples of each clip."""
    broken: tuple[dict[str, str], ...]


def cached_waveforms(
    manifest: Manifest, sample_rate_hz: int, cache: Path, say: Callable[[str], None]
) -> WaveformSet:
    """Decode a manifest, or open what an earlier run decoded.

    A clip that cannot be decoded is counted, named and left out.

    Raises:
        TrainingError: no clip is left.
        OutputError: the cache cannot be written.
    """
    folder = cache / f"waves-{sample_rate_hz}-{manifest.fingerprint()}"
    if not (folder / "index.json").exists():
        say(f"decoding {len(manifest.clips)} clips into {folder}")
        decode_into(folder, manifest, sample_rate_hz, say)
    waves = open_waveforms(folder, manifest, sample_rate_hz)
    report_broken(waves, say)
    if not waves.clips:
        raise TrainingError(f"{manifest.path}: none of its {len(manifest.clips)} clips is usable")
    return waves


def decode_into(
    folder: Path, manifest: Manifest, sample_rate_hz: int, say: Callable[[str], None]
) -> None:
    """Decode every clip into ``samples.i16``; ``index.json`` is written last, when all is there."""
    kept: list[tuple[str, int, int]] = []
    broken: list[dict[str, str]] = []
    position = 0
    with atomic_path(folder / "samples.i16") as temporary, temporary.open("wb") as file:
        decoded = decode_clips(manifest, sample_rate_hz)
        for clip, wave in told(decoded, len(manifest.clips), say):
            if isinstance(wave, AudioError):
                broken.append(asdict(BrokenClip(clip.audio_id, str(wave))))
                continue
            whole = (np.clip(wave, -1.0, 1.0) * FULL_SCALE).round().astype("<i2")
            file.write(whole.tobytes())
            kept.append((clip.audio_id, position, len(whole)))
            position += len(whole)
    with atomic_path(folder / "index.json") as temporary:
        temporary.write_text(json.dumps({"kept": kept, "broken": broken}), encoding="utf-8")


def open_waveforms(folder: Path, manifest: Manifest, sample_rate_hz: int) -> WaveformSet:
    """Map what `decode_into` wrote.

    Raises:
        TrainingError: its index is broken.
    """
    path = folder / "index.json"
    index = parse_config(WaveformIndex, read_object(path, TrainingError), str(path), TrainingError)
    by_id = {clip.audio_id: clip for clip in manifest.clips}
    path = folder / "samples.i16"
    empty = path.stat().st_size == 0  # an empty file cannot be mapped
    samples = np.zeros(0, np.int16) if empty else np.memmap(path, dtype="<i2", mode="r")
    return WaveformSet(
        samples=samples,
        starts=np.array([start for _, start, _ in index.kept], dtype=np.int64),
        lengths=np.array([length for _, _, length in index.kept], dtype=np.int64),
        clips=tuple(by_id[name] for name, _, _ in index.kept),
        broken=tuple(BrokenClip(**item) for item in index.broken),
        sample_rate_hz=sample_rate_hz,
        fingerprint=manifest.fingerprint(),
    )


def report_broken(waves: WaveformSet, say: Callable[[str], None]) -> None:
    """Count and name the clips that are left out."""
    if not waves.broken:
        return
    total = len(waves.clips) + len(waves.broken)
    say(f"{len(waves.broken)} of {total} clips cannot be used and are left out:")
    for clip in waves.broken[:NAMES_SHOWN]:
        say(f"  {clip.audio_id}: {clip.reason}")
    if len(waves.broken) > NAMES_SHOWN:
        say(f"  … and {len(waves.broken) - NAMES_SHOWN} more, all in the cache's index.json")


def pieces(lengths: Int64[np.ndarray, " clip"], num_samples: int) -> Int[np.ndarray, " piece"]:
    """Clip number of each piece: a clip gets one for every ``num_samples`` or part of them."""
    counts = np.maximum(1, -(-lengths // num_samples))
    return np.repeat(np.arange(len(lengths)), counts)


def random_crops(
    waves: WaveformSet,
    clips: Int[np.ndarray, " row"],
    num_samples: int,
    generator: torch.Generator,
) -> Float[Tensor, "row sample"]:
    """One crop of each clip, from a uniformly random place.

    A clip shorter than the crop begins with it and is followed by silence.
    """
    room = np.maximum(waves.lengths[clips] - num_samples, 0)
    uniform = torch.rand(len(clips), generator=generator, dtype=torch.float64).numpy()
    starts = np.minimum((uniform * (room + 1)).astype(np.int64), room)
    crops = [
        waves.wave(int(clip), int(start), num_samples)
        for clip, start in zip(clips, starts, strict=True)
    ]
    return torch.stack(crops)
