"""What has been measured of one system: the meeting place of scoring, statistics and reports.

A system is a folder. ``manifest.jsonl`` says which clips it has (see ``clips``), ``scores.jsonl``
what each metric says of each, one line a clip, and ``scores.json`` under which protocol.
Statistics, comparisons and reports read these files and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from resonate_audio.core.config import FrozenConfig, parse_config
from resonate_audio.core.documents.json_text import read_json_lines, read_object, write_json_lines
from resonate_audio.core.errors import ManifestError
from resonate_audio.core.files import atomic_path

SCORES, SUMMARY = "scores.jsonl", "scores.json"
Mode = Literal["deterministic", "paper"]
Failure = Literal["missing", "unreadable", "silent", "not finite", "too short"]
"""Why a clip has no values: it counts as failed, and is never left out."""


class MetricCard(FrozenConfig):
    """How a metric was measured; two numbers are comparable if their fingerprints are equal."""

    name: str
    """Column, such as ``clap``, ``aqa``, ``pq``, ``fad/nano-clap``."""
    fingerprint: str
    """Changes with weights, code version, resampler, crop, number format and question."""
    higher_is_better: bool = True
    mode: Mode = "deterministic"
    title: str = ""
    """As a table heads it; the name if empty."""
    details: dict[str, str] = Field(default_factory=dict)
    """What the fingerprint stands for, in words."""
    worst: float | None = None
    """Value that a failed clip counts with; None: no such value, the number of failures is told."""
    was_reward: bool = False
    """It was the reward of this system's training: a rise of it alone shows nothing."""


class ClipScore(FrozenConfig):
    """One clip and everything that was said of it."""

    id: str
    """Prompt's id in its set."""
    prompt: str
    seed: int = 0
    """Number of the take; a second level under the prompt."""
    file: str | None = None
    """Relative to the system's folder; None if there is none."""
    sha256: str = ""
    """Of the file's bytes as they were scored; empty in scores of older versions."""
    values: dict[str, float] = Field(default_factory=dict)
    """By metric."""
    items: dict[str, dict[str, float]] = Field(default_factory=dict)
    """What was answered to each item of the prompt, by metrics that ask about items."""
    failure: Failure | None = None
    wall_s: float | None = None
    """Seconds that making it took."""
    seconds: float | None = None
    """Its length."""
    signs: dict[str, float] = Field(default_factory=dict)
    """Loudness, share of silence, of clipping and so on: what a gamed judge goes with."""


class SystemScores(FrozenConfig):
    """All clips of one system, under one protocol."""

    system: str
    protocol: dict[str, str] = Field(default_factory=dict)
    """What must be equal for a comparison: prompt set and its hash, seeds, …"""
    facts: dict[str, str] = Field(default_factory=dict)
    """What may differ and belongs in a table: parameters, NFE, guidance, model, source."""
    cards: tuple[MetricCard, ...] = ()
    clips: tuple[ClipScore, ...] = ()
    set_values: dict[str, float] = Field(default_factory=dict)
    """Values that only a whole set has, such as FAD, by metric."""
    clips_sha256: str = ""
    """Of all clips' hashes: columns of two runs stand side by side only if it is equal."""

    def card(self, name: str) -> MetricCard:
        """The card of a metric.

        Raises:
            ManifestError: this system was not scored with it; lists those that it was.
        """
        for card in self.cards:
            if card.name == name:
                return card
        known = ", ".join(card.name for card in self.cards) or "none yet"
        raise ManifestError(f"{self.system}: not scored with {name}; it has {known}")

    def values(self, metric: str) -> list[float | None]:
        """One value a clip, in their order; a failed clip has the metric's worst, or None."""
        worst = self.card(metric).worst
        return [worst if clip.failure else clip.values.get(metric) for clip in self.clips]


def write_scores(folder: Path, scores: SystemScores) -> None:
    """Write both files, each whole or not at all."""
    write_json_lines(folder / SCORES, scores.clips, exclude_defaults=True)
    summary = scores.model_dump(mode="json", exclude={"clips"})
    with atomic_path(folder / SUMMARY) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def read_scores(folder: Path) -> SystemScores:
    """Read what `write_scores` wrote.

    Raises:
        ManifestError: a file is missing or broken, or two lines are about the same clip; names the
            file and the line.
    """
    for path in (folder / SUMMARY, folder / SCORES):
        if not path.exists():
            raise ManifestError(f"{path}: not there; run resonate eval score first")
    fields = read_object(folder / SUMMARY)
    clips = [
        parse_config(ClipScore, line, f"{folder / SCORES}, line {number}", ManifestError)
        for number, line in read_json_lines(folder / SCORES)
    ]
    _check_unique(clips, folder / SCORES)
    values = {**fields, "clips": clips}
    return parse_config(SystemScores, values, str(folder / SUMMARY), ManifestError)


def _check_unique(clips: Sequence[ClipScore], path: Path) -> None:
    seen: dict[tuple[str, int], int] = {}
    for number, clip in enumerate(clips, 1):
        first = seen.setdefault((clip.id, clip.seed), number)
        if first != number:
            raise ManifestError(
                f"{path}, line {number}: prompt {clip.id}, seed {clip.seed} stands in line {first}"
            )
