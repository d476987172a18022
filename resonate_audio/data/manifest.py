"""The list of captioned clips: one JSON object per line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from pydantic import ConfigDict, Field

from resonate_audio.audio.io import read_audio, resample
from resonate_audio.core.config import FrozenConfig, parse_config
from resonate_audio.core.documents.json_text import json_line, parse_object
from resonate_audio.core.documents.text import read_lines
from resonate_audio.core.errors import AudioError, ManifestError
from resonate_audio.core.files import atomic_path, file_sha256
from resonate_audio.core.paths import listed_path

NOT_HEARD = {"phrases", "group"}
"""Fields that change neither sound nor text; the fingerprint is older than they are."""


class Clip(FrozenConfig):
    """One line of a manifest; fields not listed here are allowed and ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    audio_id: str = Field(min_length=1)
    audio_path: str = Field(min_length=1)
    """File, relative to the manifest's folder; see `core.paths.listed_path`."""
    caption: str = Field(min_length=1)
    duration: float | None = Field(None, gt=0)
    """Seconds, as the maker of the manifest saw it; never trusted for slicing."""
    captions: tuple[str, ...] = ()
    """Other true captions."""
    start_frame: int = Field(0, ge=0)
    """First sample of the clip within its file, at the file's own rate."""
    num_frames: int | None = Field(None, ge=1)
    """Samples of the clip; None takes the rest of the file."""
    phrases: tuple[str, ...] = ()
    """The sounds that the caption names, one by one."""
    split: str | None = None
    label: str | None = None
    source: str | None = None
    """The collection it comes from."""
    group: str | None = None
    """The recording it was cut from, such as a video's id; one group belongs into one split."""
    licence: str | None = None

    def all_captions(self) -> tuple[str, ...]:
        """The caption and its alternatives, each once."""
        return tuple(dict.fromkeys((self.caption, *filter(None, self.captions))))


@dataclass(frozen=True)
class Manifest:
    """The clips of a manifest and the folder that their paths start from."""

    path: Path
    clips: tuple[Clip, ...]

    def audio_file(self, clip: Clip) -> Path:
        """Where the clip's file lies."""
        return listed_path(self.path, clip.audio_path)

    def fingerprint(self) -> str:
        """Changes when a clip or the size or date of an audio file changes."""
        digest = hashlib.sha256()
        for clip in self.clips:
            digest.update(clip.model_dump_json(exclude=NOT_HEARD).encode())
        for name in sorted({clip.audio_path for clip in self.clips}):
            digest.update(f"{name} {_file_state(listed_path(self.path, name))}".encode())
        return digest.hexdigest()[:16]

    def content(self) -> str:
        """Changes when a byte of an audio file changes; reads them all."""
        digest = hashlib.sha256()
        for name in sorted({clip.audio_path for clip in self.clips}):
            digest.update(f"{name} {_file_content(listed_path(self.path, name))}".encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class BrokenClip:
    """A clip left out of training, and why."""

    audio_id: str
    reason: str


def read_manifest(path: Path, splits: Iterable[str] | None = None) -> Manifest:
    """Read a JSONL manifest, keeping the clips of some splits (None: all).

    Raises:
        ManifestError: the file cannot be read, a line is broken or repeats an ``audio_id`` (file
            and line number are named), or no clip is left.
    """
    wanted = None if splits is None else set(splits)
    clips: dict[str, Clip] = {}
    for place, clip in stream_manifest(path):
        if clip.audio_id in clips:
            raise ManifestError(f"{place}: audio_id {clip.audio_id} was used before")
        clips[clip.audio_id] = clip
    chosen = tuple(clip for clip in clips.values() if wanted is None or clip.split in wanted)
    if not chosen:
        among = "" if wanted is None else f" of split {', '.join(sorted(wanted))}"
        raise ManifestError(f"{path}: no clip{among} in {len(clips)} lines")
    return Manifest(path, chosen)


def stream_manifest(path: Path) -> Iterator[tuple[str, Clip]]:
    """Read a manifest clip by clip, holding one line at a time.

    Yields:
        ``file:line`` and the clip. Whether an ``audio_id`` occurs twice is not looked at.

    Raises:
        ManifestError: the file cannot be read, is not UTF-8, or a line is broken; names the line.
    """
    for number, line in read_lines(path):
        if line.strip():
            place = f"{path}:{number}"
            yield place, parse_line(line, place)


def write_manifest(path: Path, clips: Iterable[Clip], overwrite: bool = True) -> int:
    """Write clips as they come, one JSON object a line, without the fields that say nothing.

    Returns:
        How many clips were written.

    Raises:
        OutputError: the file cannot be written, or exists and may not be replaced.
    """
    count = 0
    with atomic_path(path, overwrite) as temporary, temporary.open("w", encoding="utf-8") as file:
        for count, clip in enumerate(clips, start=1):  # noqa: B007 (the count is the answer)
            file.write(json_line(clip, exclude_defaults=True))
    return count


def parse_line(line: str, place: str) -> Clip:
    """Read one manifest line.

    Raises:
        ManifestError: it is not JSON or a field is missing or wrong; names ``place``.
    """
    return parse_config(Clip, parse_object(line, place), place, ManifestError)


def decode_clips(
    manifest: Manifest, sample_rate_hz: int
) -> Iterator[tuple[Clip, Float32[np.ndarray, " sample"] | AudioError]]:
    """Decode every clip, file by file, or give the error that stands in its way.

    A file that holds many clips is decoded once and from its beginning, because seeking inside
    compressed audio is not exact to the sample.
    """
    for name, clips in groupby(_by_file(manifest.clips), key=lambda clip: clip.audio_path):
        try:
            whole = read_audio(listed_path(manifest.path, name))
        except AudioError as error:
            yield from ((clip, error) for clip in clips)
            continue
        for clip in clips:
            try:
                part = cut_clip(clip, whole.samples)
                yield clip, resample(part, whole.sample_rate_hz, sample_rate_hz)
            except AudioError as error:
                yield clip, error


def cut_clip(
    clip: Clip, samples: Float32[np.ndarray, " sample"]
) -> Float32[np.ndarray, " sample2"]:
    """Take the clip out of its file.

    Raises:
        AudioError: the clip reaches past the end of the file, or is nothing but digital silence.
    """
    end = len(samples) if clip.num_frames is None else clip.start_frame + clip.num_frames
    if not clip.start_frame < end <= len(samples):
        raise AudioError(
            f"{clip.audio_path}: samples {clip.start_frame} to {end} asked for, "
            f"the file has {len(samples)}"
        )
    part = samples[clip.start_frame : end]
    if not np.any(part):
        raise AudioError(f"{clip.audio_path}: nothing but digital silence")
    return part


def _by_file(clips: Iterable[Clip]) -> list[Clip]:
    return sorted(clips, key=lambda clip: clip.audio_path)


def _file_state(path: Path) -> str:
    try:
        state = path.stat()
    except OSError:
        return "missing"
    return f"{state.st_size} {state.st_mtime_ns}"


def _file_content(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return "missing"
