"""From a file of any kind to clips: mono, 44.1 kHz, trimmed, at most 10 s, at a sane level."""

# ruff: noqa: SIM905 (lists of words read best as text)
from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corpus.candidates import Candidate
from corpus.licences import Credit
from corpus.sources import Folders
from resonate_audio.core.documents.json_text import json_line, read_json_lines
from resonate_audio.core.files import atomic_path

SAMPLE_RATE_HZ = 44_100
FRAME_SAMPLES = SAMPLE_RATE_HZ // 100
MAX_FILE_S = 180
MAX_CLIP_S = 10.0
SLACK_S = 0.5
"""A file this much longer than a clip is cut off, not cut up."""
MIN_CLIP_S = 0.2
SILENT_FILE_DB = -50
SILENT_CLIP_DB = -46
TRIM_DB, TRIM_FLOOR_DB = -50, -66
FADE_S = 0.02
MAX_SEGMENTS = 4
LOUDEST, QUIETEST, RAISED_TO, MAX_GAIN = 0.99, 0.25, 0.5, 10.0

AMBIENCES = frozenset(
    (
        "rain;wind;sea waves;river;stream;waterfall;crickets;birdsong;forest ambience;"
        "jungle ambience;night ambience;city ambience;cafe ambience;tavern crowd;market crowd;"
        "crowd chatter;traffic;factory;harbor ambience;farm ambience;fire crackling;thunderstorm;"
        "white noise;pink noise;brown noise;train passing;airplane cabin;rowing boat;underwater;"
        "water dripping;blizzard;wind in leaves;children playing;helicopter;propeller plane;"
        "jet plane;car engine;fan;server room;machine running;loom weaving;electric hum;"
        "bees buzzing;crowd cheering;applause;leaves rustling;seagull cry;frog croak;owl hoot;"
        "boiling water"
    ).split(";")
)
"""Classes of which a long recording gives several clips."""


@dataclass(frozen=True)
class Processed:
    """One clip, written as FLAC."""

    id: str
    candidate: Candidate
    segment: int
    num_segments: int
    frames: int
    sample_rate_orig: int
    pcm: str
    """Hash of its samples."""
    num_bursts: int
    depth_db: float
    """Loudest frame above the quietest sixth."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / SAMPLE_RATE_HZ

    def to_json(self) -> str:
        """One line of a listing."""
        return json_line(dataclasses.asdict(self))

    @classmethod
    def from_fields(cls, row: dict[str, Any]) -> Processed:
        """Read such a line's fields."""
        candidate = row.pop("candidate")
        owner, captions = Credit(**candidate.pop("credit")), tuple(candidate.pop("captions"))
        return cls(candidate=Candidate(**candidate, credit=owner, captions=captions), **row)


def process_source(
    candidates: Sequence[Candidate], folders: Folders
) -> tuple[list[Processed], Counter[str]]:
    """Make clips of the files of one source, once; a killed run begins the source again.

    Returns:
        The clips, and how many files gave none, by reason.
    """
    if not candidates:
        return [], Counter()
    identity = hashlib.sha1(repr(candidates).encode()).hexdigest()[:10]
    listing = folders.clips / f"{candidates[0].source}-{identity}.jsonl"
    if listing.is_file():
        (_, left), *rows = read_json_lines(listing)
        return [Processed.from_fields(row) for _, row in rows], Counter(left)
    clips, left_out = [], Counter[str]()
    seen = set()
    for candidate in candidates:
        if candidate.path in seen:
            continue
        seen.add(candidate.path)
        made = list(process_file(candidate, folders))
        clips += [item for item in made if isinstance(item, Processed)]
        left_out.update(item for item in made if isinstance(item, str))
    with atomic_path(listing) as partial:
        lines = [json_line(left_out), *(clip.to_json() for clip in clips)]
        partial.write_text("".join(lines), encoding="utf-8")
    return clips, left_out


def process_file(candidate: Candidate, folders: Folders) -> Iterator[Processed | str]:
    """Yield the clips of one file, or why it has none."""
    import soundfile

    decoded = decode(folders.sources / candidate.path)
    if decoded is None:
        yield "unreadable"
        return
    samples, rate_hz = decoded
    parts = cut(samples, candidate.label)
    if isinstance(parts, str):
        yield parts
        return
    for index, part in enumerate(parts):
        pcm = (np.clip(part, -1, 1) * 32767).round().astype(np.int16)
        name = clip_id(candidate.source, candidate.name, index)
        path = clip_path(candidate.source, name, folders)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, pcm, SAMPLE_RATE_HZ, subtype="PCM_16")
        bursts, depth_db = count_bursts(part)
        yield Processed(
            name, candidate, index, len(parts), len(pcm), rate_hz,
            hashlib.sha1(pcm.tobytes()).hexdigest(), bursts, round(depth_db, 1),
        )  # fmt: skip


def clip_id(source: str, name: str, segment: int) -> str:
    """An id that follows from where the clip was cut from."""
    return f"{source}-{hashlib.sha1(f'{source}|{name}|{segment}'.encode()).hexdigest()[:10]}"


def clip_path(source: str, name: str, folders: Folders) -> Path:
    """Where a clip's FLAC file lies."""
    return folders.clips / source / f"{name}.flac"


def decode(path: Path) -> tuple[np.ndarray, int] | None:
    """Mono samples at 44.1 kHz, and the rate of the file; None if nothing can read it."""
    import soundfile
    import soxr

    try:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError):
        decoded = _decode_with_ffmpeg(path)
        if decoded is None:
            return None
        samples, rate_hz = decoded
    if not len(samples) or not np.isfinite(samples).all():
        return None
    mono = samples.mean(1)[: MAX_FILE_S * rate_hz]
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)
    offset = mono.mean()
    return (mono - offset if abs(offset) > 1e-3 else mono), rate_hz


def _decode_with_ffmpeg(path: Path) -> tuple[np.ndarray, int] | None:
    """For the few files that libsndfile cannot read (WavPack); None without ffmpeg."""
    rate_hz = SAMPLE_RATE_HZ
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a:0", "-f", "f32le"]
    command += ["-ac", "1", "-ar", str(rate_hz), "-t", str(MAX_FILE_S), "-"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return np.frombuffer(done.stdout, np.float32)[:, None].copy(), rate_hz


def cut(samples: np.ndarray, label: str) -> list[np.ndarray] | str:
    """Trim, cut into segments, fade at cuts, level; returns a reason if nothing is left."""
    if not len(samples) or np.abs(samples).max() < 10 ** (SILENT_FILE_DB / 20):
        return "silent"
    trimmed = trim(samples)
    duration_s = len(trimmed) / SAMPLE_RATE_HZ
    if duration_s < MIN_CLIP_S:
        return "short"
    if duration_s <= MAX_CLIP_S + SLACK_S:
        parts = [trimmed[: int(MAX_CLIP_S * SAMPLE_RATE_HZ)].copy()]
    else:
        wanted = MAX_SEGMENTS if label in AMBIENCES else 1
        parts = segments(trimmed, min(int(duration_s // MAX_CLIP_S), wanted))
    if duration_s > MAX_CLIP_S:
        for index, part in enumerate(parts):
            fade(part, at_start=index > 0)
    loud = [p for p in parts if np.abs(p).max() >= 10 ** (SILENT_CLIP_DB / 20)]
    return [level(part) for part in loud] or "silent"


def trim(samples: np.ndarray) -> np.ndarray:
    """Keep from the first to the last frame above the threshold, 10 ms before and 40 ms after."""
    loudness = frame_rms(samples)
    threshold = max(loudness.max() * 10 ** (TRIM_DB / 20), 10 ** (TRIM_FLOOR_DB / 20))
    loud = np.flatnonzero(loudness > threshold)
    if not len(loud):
        return samples[:0]
    begin = max(0, loud[0] - 1) * FRAME_SAMPLES
    return samples[begin : (loud[-1] + 4) * FRAME_SAMPLES]


def frame_rms(samples: np.ndarray) -> np.ndarray:
    """Root mean square of each whole 10 ms."""
    num_frames = len(samples) // FRAME_SAMPLES
    if num_frames < 1:
        return np.array([np.sqrt(np.mean(np.square(samples)) + 1e-12)])
    frames = samples[: num_frames * FRAME_SAMPLES].reshape(num_frames, FRAME_SAMPLES)
    return np.sqrt(np.square(frames).mean(1) + 1e-12)


def segments(samples: np.ndarray, count: int) -> list[np.ndarray]:
    """``count`` clips of full length, evenly spaced from the first to the last."""
    spare_s = len(samples) / SAMPLE_RATE_HZ - MAX_CLIP_S
    starts = [int(i * spare_s / max(1, count - 1) * SAMPLE_RATE_HZ) for i in range(count)]
    length = int(MAX_CLIP_S * SAMPLE_RATE_HZ)
    return [samples[start : start + length].copy() for start in starts]


def fade(part: np.ndarray, at_start: bool) -> None:
    """Fade the end, and the start if it is a cut too, in place."""
    ramp = np.linspace(1, 0, int(FADE_S * SAMPLE_RATE_HZ))
    part[-len(ramp) :] *= ramp
    if at_start:
        part[: len(ramp)] *= ramp[::-1]


def level(part: np.ndarray) -> np.ndarray:
    """Lower what clips, raise what is faint by at most 20 dB, leave the rest."""
    peak = np.abs(part).max()
    gain = 1.0
    if peak > LOUDEST:
        gain = LOUDEST / peak
    elif peak < QUIETEST:
        gain = min(RAISED_TO / peak, MAX_GAIN)
    return (part * gain).astype(np.float32)


def count_bursts(part: np.ndarray) -> tuple[int, float]:
    """How often the clip rises within 18 dB of its peak, and how deep it falls between, dB.

    Gaps under 100 ms do not separate bursts, and a burst lasts at least 30 ms.
    """
    loudness_db = 20 * np.log10(frame_rms(part) + 1e-7)
    loud = np.flatnonzero(loudness_db > loudness_db.max() - 18)
    breaks = np.flatnonzero(np.diff(loud) - 1 >= 10)
    begins = loud[np.concatenate([[0], breaks + 1])]
    ends = loud[np.concatenate([breaks, [len(loud) - 1]])] + 1
    depth_db = float(loudness_db.max() - np.percentile(loudness_db, 15))
    return int((ends - begins >= 3).sum()), depth_db


def load_clip(clip: Processed, folders: Folders) -> np.ndarray:
    """Samples of a clip."""
    import soundfile

    return soundfile.read(clip_path(clip.candidate.source, clip.id, folders), dtype="float32")[0]


def by_id(clips: Iterable[Processed]) -> dict[str, Processed]:
    """Index clips."""
    return {clip.id: clip for clip in clips}
