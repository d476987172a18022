"""What can be said of a clip without knowing the others."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32
from pydantic import Field

from resonate_audio.audio.io import read_audio
from resonate_audio.core.config import FrozenConfig, GivenPath
from resonate_audio.core.errors import AudioError
from resonate_audio.core.paths import listed_path
from resonate_audio.data.fingerprint import fingerprint
from resonate_audio.data.manifest import Clip

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FULL_SCALE = 0.98
"""A clip whose peak is lower is not called clipped, although it may have been before a fader."""
FLAT_SAMPLES = 3
"""Neighbours at the peak that make it a flat top."""
LEVEL_WINDOW_S = 0.05
WRONG_ENCODING = re.compile("\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|[\u0080-\u009f]")
"""U+FFFD, UTF-8 that was read as Latin-1 or Windows-1252, or a control character of Latin-1."""


class CheckConfig(FrozenConfig):
    """What counts as a problem."""

    sample_rate_hz: int = Field(44_100, ge=1, le=1_000_000)
    """Of the model; a lower rate lacks the upper part of the spectrum."""
    min_s: float = Field(0.5, ge=0)
    silence_db: float = -60.0
    """A clip is silent if its loudest 50 ms lie below this, in dB re full scale."""
    clipped_share: float = Field(1e-3, gt=0, le=1)
    """Of the samples that may lie in flat tops at full scale."""
    max_tokens: int = Field(77, ge=1, le=1_000_000)
    """Of the text encoder."""
    tokenizer: GivenPath | None = None
    """Its ``tokenizer.json``; None does not count tokens."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to look at."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """A clip as it was found."""

    clip: Clip
    duration_s: float | None
    rate_hz: int | None
    code: bytes | None
    problems: tuple[Problem, ...]


def inspect_files(
    manifest: Path, files: Sequence[Sequence[Clip]], config: CheckConfig
) -> list[ClipFacts]:
    """Inspect the clips of some files, in their order.

    Args:
        manifest: which lists them.
        files: the clips of each file.
        config: what counts as a problem.
    """
    return [facts for clips in files for facts in inspect_file(manifest, clips, config)]


def inspect_file(manifest: Path, clips: Sequence[Clip], config: CheckConfig) -> Iterator[ClipFacts]:
    """Inspect clips of one file, which is decoded once."""
    path = listed_path(manifest, clips[0].audio_path)
    try:
        audio = read_audio(path)
    except AudioError as error:
        kind = "unreadable" if os.path.isfile(path) else "missing"
        problem = Problem(kind, " ".join(str(error).split()))
        for clip in clips:
            yield ClipFacts(clip, None, None, None, (problem, *caption_problems(clip, config)))
        return
    for clip in clips:
        yield inspect_clip(clip, audio.samples, audio.sample_rate_hz, config)


def inspect_clip(
    clip: Clip, samples: Float32[np.ndarray, " sample"], rate_hz: int, config: CheckConfig
) -> ClipFacts:
    """Inspect a clip within the samples of its file."""
    end = len(samples) if clip.num_frames is None else clip.start_frame + clip.num_frames
    words = caption_problems(clip, config)
    if not clip.start_frame < end <= len(samples):
        text = f"samples {clip.start_frame} to {end} of a file of {len(samples)}"
        return ClipFacts(clip, None, rate_hz, None, (Problem("outside", text), *words))
    part = samples[clip.start_frame : end]
    problems = (*sound_problems(part, rate_hz, config), *length_problems(clip, part, rate_hz))
    code = fingerprint(part, rate_hz)
    return ClipFacts(clip, len(part) / rate_hz, rate_hz, code, (*problems, *words))


def sound_problems(
    samples: Float32[np.ndarray, " sample"], rate_hz: int, config: CheckConfig
) -> Iterator[Problem]:
    """Silent, clipped, short, or of too low a rate."""
    level_db = loudest_db(samples, rate_hz)
    if level_db < config.silence_db:
        level = f"{level_db:.0f} dB at its loudest" if level_db > -200 else "digital silence"
        yield Problem("silent", level)
    share = clipped_share(samples)
    if share > config.clipped_share:
        yield Problem("clipped", f"{share:.1%} of its samples lie in flat tops")
    if rate_hz < config.sample_rate_hz:
        yield Problem("low-rate", f"{rate_hz} Hz, the model has {config.sample_rate_hz} Hz")
    if len(samples) < config.min_s * rate_hz:
        yield Problem("short", f"{len(samples) / rate_hz:.2f} s")


def length_problems(
    clip: Clip, samples: Float32[np.ndarray, " sample"], rate_hz: int
) -> Iterator[Problem]:
    """The manifest says another duration: more than half a second and 5 % apart."""
    found_s = len(samples) / rate_hz
    if clip.duration and abs(found_s - clip.duration) > max(0.5, 0.05 * clip.duration):
        yield Problem("duration", f"{found_s:.2f} s, the manifest says {clip.duration:.2f} s")


def loudest_db(samples: Float32[np.ndarray, " sample"], rate_hz: int) -> float:
    """Root mean square of the loudest 50 ms, in dB re full scale; −300 for nothing but zeros."""
    size = max(1, min(len(samples), round(LEVEL_WINDOW_S * rate_hz)))
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    power = float(np.square(blocks, dtype=np.float64).mean(axis=1).max())
    return 10.0 * float(np.log10(power + 1e-30))


def clipped_share(samples: Float32[np.ndarray, " sample"]) -> float:
    """Share of samples within runs of three or more at the peak, if the peak is at full scale."""
    size = np.abs(samples)
    peak = float(size.max(initial=0.0))
    if peak < FULL_SCALE:
        return 0.0
    at_peak = np.concatenate([[False], size >= 0.999 * min(peak, 1.0), [False]])
    borders = np.flatnonzero(at_peak[1:] != at_peak[:-1])
    runs = borders[1::2] - borders[::2]
    return float(runs[runs >= FLAT_SAMPLES].sum()) / len(samples)


def caption_problems(clip: Clip, config: CheckConfig) -> tuple[Problem, ...]:
    """Empty, only marks, in a wrong encoding, or longer than the text encoder sees."""
    found = []
    for text in (clip.caption, *clip.captions):
        if not text.strip():
            found.append(Problem("caption-empty", "an empty text"))
        elif not any(unicodedata.category(mark)[0] in "LN" for mark in text):
            found.append(Problem("caption-marks", f"{text!r} has neither letter nor digit"))
        if mark := WRONG_ENCODING.search(text):
            found.append(Problem("caption-encoding", f"{mark[0]!r} in {shorten(text)!r}"))
        if config.tokenizer and (count := count_tokens(config.tokenizer, text)) > config.max_tokens:
            cut = f"{count} tokens, {config.max_tokens} are heard: {shorten(text)!r}"
            found.append(Problem("caption-long", cut))
    return tuple(found)


def shorten(text: str, most: int = 60) -> str:
    """The beginning of a long text."""
    return text if len(text) <= most else text[: most - 1] + "…"


def count_tokens(tokenizer: Path, text: str) -> int:
    """Tokens of a text, with those that mark its end.

    Raises:
        CheckpointError: the file is no tokenizer.
    """
    return len(_load_tokenizer(tokenizer).encode(text).ids)


@lru_cache(maxsize=1)
def _load_tokenizer(path: Path) -> Tokenizer:
    from resonate_audio.model.checkpoint import read_tokenizer

    tokenizer = read_tokenizer(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
