"""Write the corpus: shards of Ogg Vorbis, a manifest, and a table of credits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corpus.captions import word_clip
from corpus.choose import Choice
from corpus.process import SAMPLE_RATE_HZ, Processed, load_clip
from corpus.sources import Folders
from resonate_audio.core.files import atomic_path

SHARD_CLIPS = 64
GAP_SAMPLES = 2205
"""Silence after each clip, so that the codec smears none into the next."""
COMPRESSION_LEVEL = 0.8
"""Vorbis quality 2."""
BLOCK_SAMPLES = 22_050
"""The encoder is fed in blocks: libsndfile overflows its stack on very long ones."""


@dataclass(frozen=True)
class Placed:
    """A clip with its split and its wording."""

    clip: Processed
    choice: Choice
    caption: str
    captions: list[str]

    def row(self, shard: str, start: int) -> dict[str, Any]:
        """One line of the manifest."""
        candidate = self.clip.candidate
        owner = {
            key: value
            for key in ("author", "url", "package")
            if (value := getattr(candidate.credit, key))
        }
        return {
            "shard": shard,
            "start": start,
            "frames": self.clip.frames,
            "id": self.clip.id,
            "caption": self.caption,
            "captions": self.captions,
            "label": candidate.label,
            "source": candidate.source,
            "licence": candidate.credit.licence,
            "split": self.choice.split,
            "group": self.choice.group,
            "duration": round(self.clip.duration_s, 3),
            "sample_rate_orig": self.clip.sample_rate_orig,
            "origin": candidate.path,
            **owner,
        }


def place_clips(
    clips: Sequence[Processed],
    choices: dict[str, Choice],
    labels: dict[str, tuple[str, ...]],
) -> list[Placed]:
    """Word the clips that have a place, in the order of sources and ids."""
    chosen = [clip for clip in clips if clip.id in choices]
    chosen.sort(key=lambda clip: (clip.candidate.source, clip.id))
    return [Placed(clip, choices[clip.id], *word_clip(clip, labels)) for clip in chosen]


def write_corpus(placed: Sequence[Placed], folders: Folders, out: Path) -> None:
    """Write every shard, then the manifest and the credits; shards of an older run are replaced."""
    rows = []
    for number, begin in enumerate(range(0, len(placed), SHARD_CLIPS)):
        name = f"{number:03d}.ogg"
        rows += _write_shard(out / "shards" / name, placed[begin : begin + SHARD_CLIPS], folders)
    with atomic_path(out / "manifest.jsonl") as partial:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    with atomic_path(out / "LICENCES.md") as partial:
        partial.write_text(credits_table(placed), encoding="utf-8")


def _write_shard(path: Path, placed: Sequence[Placed], folders: Folders) -> list[dict[str, Any]]:
    import soundfile

    rows, position = [], 0
    gap = np.zeros(GAP_SAMPLES, np.float32)
    with (
        atomic_path(path) as partial,
        soundfile.SoundFile(
            partial, "w", SAMPLE_RATE_HZ, 1, "VORBIS", format="OGG",
            compression_level=COMPRESSION_LEVEL,
        ) as file,
    ):  # fmt: skip
        for item in placed:
            samples = load_clip(item.clip, folders)
            for begin in range(0, len(samples), BLOCK_SAMPLES):
                file.write(samples[begin : begin + BLOCK_SAMPLES])
            file.write(gap)
            rows.append(item.row(path.name, position))
            position += len(samples) + GAP_SAMPLES
    return rows


def credits_table(placed: Sequence[Placed]) -> str:
    """Which source is under which licence."""
    counts = Counter(
        (item.clip.candidate.source, item.clip.candidate.credit.licence) for item in placed
    )
    lines = [
        "# Licences of the rebuilt corpus",
        "",
        "Every clip keeps the licence of its source; `manifest.jsonl` gives it for each. All were",
        "changed: mixed to mono, resampled, trimmed, cut to at most 10 s, levelled, encoded.",
        "",
        "| source | licence | clips |",
        "| --- | --- | --- |",
        *(f"| {source} | {licence} | {n} |" for (source, licence), n in sorted(counts.items())),
    ]
    return "\n".join(lines) + "\n"
