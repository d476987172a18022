"""The recordings that judges learn from: as they are, and as nano's decoder gives them.

A judge that only ever met clean recordings would hear a generator's vocoder before its events, so
every recording is kept twice: itself, and after nano's VAE and vocoder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, Int16, Int64

from resonate_audio.audio.decoding import read_sound
from resonate_audio.core.documents.arrays import read_array
from resonate_audio.core.documents.json_text import read_json, read_json_lines
from resonate_audio.core.errors import ManifestError
from resonate_audio.core.files import atomic_path, file_sha256
from resonate_audio.model.folder import WEIGHTS_NAME
from resonate_audio.nano.bundle import BUNDLED_FOLDER
from resonate_audio.nano.judges.questions import Source

if TYPE_CHECKING:
    from resonate_audio.model.text_encoder import TextEncoder
    from resonate_audio.pipeline.path import Resonate

RATE_HZ = 16_000
MAX_SAMPLES = 79 * 1024
"""What is kept of a recording: five seconds, the canvas of a scene."""
COUNTABLE_SAMPLES = int(1.3 * RATE_HZ)
"""Longer recordings are never repeated and counted."""
COUNT_WORDS = re.compile(
    r"\b(once|twice|times|single|one|two|three|four|five|several|repeatedly|multiple|burst|number"
    r"|counts?|rapid|rapidly|pair|series|few|many|rhythm|beat|scale|melody|arpeggio|again|says)\b"
)
"""A caption with one of these already speaks of number, or of something that has parts."""
VERSION = 3

Half = Literal["all", "first", "second"]

Samples = Float32[np.ndarray, "_"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class SoundSet:
    """Recordings of one split."""

    sources: tuple[Source, ...]
    """What each recording is, as far as a question may depend on it."""
    starts: Int64[np.ndarray, " recording"]
    """Where each begins among the samples."""
    plain: Int16[np.ndarray, " sample"]
    decoded: Int16[np.ndarray, " sample"]
    """The same recordings after nano's VAE and vocoder."""

    def samples(self, index: int, decoded: bool = False) -> Samples:
        """One recording in [-1, 1]."""
        whole = self.decoded if decoded else self.plain
        start = self.starts[index]
        piece = whole[start : start + self.sources[index].num_samples]
        return piece.astype(np.float32) / np.float32(32767)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(sorted({source.label for source in self.sources}))


def cached_sounds(
    corpus: Path, cache: Path, split: str, say: Say, codec: Path = BUNDLED_FOLDER
) -> SoundSet:
    """Read one split of the corpus; decoded the first time, mapped from ``cache`` afterwards.

    Args:
        corpus: folder with manifest.jsonl and shards.
        cache: folder where the result is kept.
        split: of the manifest.
        say: told what is being done.
        codec: folder of the model whose VAE and vocoder everything passes.

    Raises:
        ManifestError: no corpus is there, or a shard of it is missing.
    """
    clips = read_clips(corpus, split)
    weights = [file_sha256(codec / part / WEIGHTS_NAME) for part in ("vae", "vocoder")]
    listing = json.dumps([VERSION, weights, clips], sort_keys=True)
    folder = cache / f"sounds-{split}-{hashlib.sha1(listing.encode()).hexdigest()[:10]}"
    if not (folder / "sources.json").is_file():
        _write_sounds(folder, corpus, codec, clips, say)
    rows = read_json(folder / "sources.json")
    return SoundSet(
        tuple(
            Source(
                row["label"],
                tuple(row["captions"]),
                row["samples"],
                tuple(row["countable"]),
                row["group"],
            )
            for row in rows
        ),
        np.cumsum([0, *(row["samples"] for row in rows[:-1])]),
        read_array(folder / "plain.npy", str(folder / "plain.npy")),
        read_array(folder / "decoded.npy", str(folder / "decoded.npy")),
    )


def read_clips(corpus: Path, split: str) -> list[dict[str, Any]]:
    """The manifest's lines of one split.

    Raises:
        ManifestError: no corpus is there.
    """
    path = corpus / "manifest.jsonl"
    if not path.is_file():
        raise ManifestError(f"{path}: no corpus there; rebuild it with recipes/nano/prepare")
    return [clip for _, clip in read_json_lines(path) if clip.get("split") == split]


def _write_sounds(
    folder: Path, corpus: Path, codec: Path, clips: list[dict[str, Any]], say: Say
) -> None:
    say(f"decoding {len(clips)} recordings")
    sounds = decode_clips(corpus, clips)
    say("passing them through nano's VAE and vocoder")
    from resonate_audio.pipeline.path import Resonate

    decoded = through_decoder(Resonate.from_pretrained(codec, device="cpu"), sounds)
    rows = [
        {
            "label": clip["label"],
            "captions": list(dict.fromkeys([clip["caption"], *clip.get("captions", [])])),
            "samples": len(samples),
            "group": str(clip.get("group", clip["id"])),
        }
        for clip, samples in zip(clips, sounds, strict=True)
    ]
    for row, samples in zip(rows, sounds, strict=True):
        row["countable"] = countable_captions(row["captions"], samples)
    for name, waves in (("plain", sounds), ("decoded", decoded)):
        with atomic_path(folder / f"{name}.npy") as temporary:
            np.save(temporary, np.concatenate([to_int16(wave) for wave in waves]))
    with atomic_path(folder / "sources.json") as temporary:
        temporary.write_text(json.dumps(rows), encoding="utf-8")


def decode_clips(
    corpus: Path, clips: Sequence[dict[str, Any]], rate_hz: int = RATE_HZ
) -> list[Samples]:
    """At most five seconds of each clip, in the order given.

    Args:
        corpus: folder with the shards.
        clips: lines of its manifest.
        rate_hz: of what is returned; 16 kHz is what judges hear.

    Raises:
        ManifestError: a shard is missing.
    """
    import soxr

    shards: dict[str, list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        shards[clip["shard"]].append(index)
    sounds: list[Samples] = [np.zeros(0, np.float32)] * len(clips)
    for shard, indices in shards.items():
        path = corpus / "shards" / shard
        if not path.is_file():
            raise ManifestError(f"{path}: the shard is missing; run recipes/nano/prepare again")
        found = read_sound(path)
        wave, of_shard_hz = found.samples, found.sample_rate_hz
        for index in indices:
            start, length = clips[index]["start"], clips[index]["frames"]
            piece = wave[start : start + min(length, MAX_SAMPLES * of_shard_hz // RATE_HZ + 1)]
            samples = np.clip(soxr.resample(piece, of_shard_hz, rate_hz), -1, 1)
            sounds[index] = samples[: MAX_SAMPLES * rate_hz // RATE_HZ]
    return sounds


@torch.inference_mode()
def through_decoder(pipeline: Resonate, sounds: Sequence[Samples]) -> list[Samples]:
    """Each sound after mel, VAE and vocoder, at its own length and peak.

    They are laid one after the other with silence between, and decoded a minute at a time.
    """
    import soxr

    from resonate_audio.audio.mel import MelFrontEnd

    config, vocoder = pipeline.config.mel, pipeline.vocoder
    front_end, frame = MelFrontEnd(config), config.hop_samples * pipeline.vae.hops_per_frame
    decoded: list[Samples] = []
    at_rate = [soxr.resample(sound, RATE_HZ, config.sample_rate_hz) for sound in sounds]
    for batch in batches_of(at_rate, 60 * config.sample_rate_hz):
        spaces = [np.zeros(-len(sound) % frame + 4 * frame, np.float32) for sound in batch]
        pieces = [part for pair in zip(batch, spaces, strict=True) for part in pair]
        mel = front_end(torch.from_numpy(np.concatenate(pieces))[None])
        made = vocoder(pipeline.vae.decode(pipeline.vae.encode(mel).mean))[0].numpy()
        position = 0
        for sound, space in zip(batch, spaces, strict=True):
            piece = made[position : position + len(sound)]
            decoded.append(soxr.resample(piece, config.sample_rate_hz, RATE_HZ))
            position += len(sound) + len(space)
    return [exactly(piece, len(sound)) for piece, sound in zip(decoded, sounds, strict=True)]


def exactly(samples: Samples, num_samples: int) -> Samples:
    """So many samples: the rest is cut, or silence follows."""
    padded: Samples = np.pad(samples[:num_samples], (0, max(0, num_samples - len(samples))))
    return padded


def in_half(group: str, half: Half) -> bool:
    """Whether recordings of a group are in a half of the corpus; groups fall by their hash."""
    odd = hashlib.sha256(group.encode()).digest()[0] % 2
    return half == "all" or odd == (half == "second")


def only_half(sounds: SoundSet, half: Half) -> SoundSet:
    """The recordings of one half, whole groups, of the same samples."""
    kept = [i for i, source in enumerate(sounds.sources) if in_half(source.group, half)]
    sources = tuple(sounds.sources[index] for index in kept)
    return replace(sounds, sources=sources, starts=sounds.starts[kept])


def batches_of(sounds: Sequence[Samples], num_samples: int) -> list[list[Samples]]:
    """Neighbours together until they hold so many samples."""
    batches: list[list[Samples]] = [[]]
    for sound in sounds:
        if batches[-1] and sum(map(len, batches[-1])) + len(sound) > num_samples:
            batches.append([])
        batches[-1].append(sound)
    return batches


def countable_captions(captions: Sequence[str], samples: Samples) -> list[str]:
    """The captions that "twice" can be put after: of one short event, and silent on number."""
    if len(samples) > COUNTABLE_SAMPLES or num_bursts(samples) != 1:
        return []
    return [caption for caption in captions if not COUNT_WORDS.search(caption)]


def num_bursts(samples: Samples, rate_hz: int = RATE_HZ) -> int:
    """How often the level rises to within 12 dB of its peak from 24 dB below it.

    The level is the power of 10 ms frames, smoothed over 50 ms.
    """
    hop = rate_hz // 100
    padded = np.pad(samples, (0, -len(samples) % hop))
    power = np.square(padded.reshape(-1, hop)).mean(axis=1)
    level_db = 10 * np.log10(np.convolve(power, np.ones(5) / 5, mode="same") + 1e-12)
    relative_db = level_db - level_db.max()
    bursts, loud = 0, False
    for value in relative_db:
        if not loud and value > -12:
            bursts, loud = bursts + 1, True
        loud = loud and value > -24
    return bursts


def to_int16(samples: Samples) -> Int16[np.ndarray, " sample"]:
    """Rounded to 16 bits."""
    rounded: Int16[np.ndarray, " sample"] = np.round(np.clip(samples, -1, 1) * 32767).astype("i2")
    return rounded


def class_similarity(
    sounds: SoundSet, encoder: TextEncoder, cache: Path
) -> tuple[tuple[str, ...], Float32[np.ndarray, "label label"]]:
    """Cosine between the mean caption of each class and of each other, by MiniLM.

    Args:
        sounds: whose captions; recordings of other splits have no other classes.
        encoder: reads the captions.
        cache: folder where the result is kept, under the hash of the captions.

    Returns:
        The classes, sorted, and the matrix.
    """
    labels = sounds.labels
    captions: dict[str, list[str]] = defaultdict(list)
    for source in sounds.sources:
        captions[source.label] += source.captions
    said = json.dumps([captions[label] for label in labels])
    path = cache / f"similarity-{hashlib.sha256(said.encode()).hexdigest()[:16]}.npy"
    if path.is_file():
        kept: Float32[np.ndarray, "label label"] = np.array(read_array(path, str(path)))
        return labels, kept
    means = []
    for label in labels:
        texts = list(dict.fromkeys(captions[label]))[:12]
        pooled = encoder.encode(texts).pooled
        means.append(torch.nn.functional.normalize(pooled, dim=1).mean(dim=0))
    unit = torch.nn.functional.normalize(torch.stack(means), dim=1)
    similarity: Float32[np.ndarray, "label label"] = (unit @ unit.T).cpu().numpy()
    with atomic_path(path) as temporary:
        np.save(temporary, similarity)
    return labels, similarity
