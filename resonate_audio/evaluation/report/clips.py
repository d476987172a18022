"""The clips that a report lets one hear: the best and worst of each system, by one metric."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
from jaxtyping import Float32

from resonate_audio.audio.io import FORMATS, encode_audio, read_audio
from resonate_audio.audio.spectrogram import COLOURS, RANGE_DB, levels_db
from resonate_audio.core.errors import AudioError
from resonate_audio.core.page import data_url
from resonate_audio.core.types import Audio
from resonate_audio.evaluation.clips.folder import file_sha256
from resonate_audio.evaluation.report.make import ScoredFolder
from resonate_audio.evaluation.scores.scored import ClipScore, SystemScores

OPUS = replace(FORMATS[".opus"], compression_level=0.8)
"""60 kb/s: a third of the bytes of files that are kept, for a page that is passed around."""
PICTURE_ROWS, PICTURE_COLUMNS = 96, 480
PICTURE_COLOURS = 64
"""Levels of a picture; more cannot be told apart and double the bytes."""
CHANGED = "the file was changed after it was scored; run resonate eval score again"

Rank = Literal["best", "worst"]


@dataclass(frozen=True)
class HeardClip:
    """One clip on the page."""

    system: str
    clip: ClipScore
    rank: Rank
    value: float
    sound: str = ""
    """Address of the sound; empty if it cannot be heard, see ``trouble``."""
    picture: str = ""
    """Address of its spectrogram; empty where sounds are linked."""
    trouble: str = ""


def choose_clips(
    scores: SystemScores, metric: str, num_clips: int, higher_is_better: bool = True
) -> list[tuple[Rank, ClipScore, float]]:
    """The best and worst clips of a system that can be heard, the extreme one first.

    Of fewer than twice as many, none is in both halves.

    Args:
        scores: one system.
        metric: a column.
        num_clips: of each half.
        higher_is_better: which end is the best.
    """
    valued = [
        (clip, clip.values[metric])
        for clip in scores.clips
        if clip.failure is None and clip.file and metric in clip.values
    ]
    valued.sort(key=lambda pair: (pair[1], pair[0].id, pair[0].seed), reverse=higher_is_better)
    count = min(num_clips, len(valued) // 2) if len(valued) > 1 else len(valued) * (num_clips > 0)
    last = min(count, len(valued) // 2)
    chosen: list[tuple[Rank, ClipScore, float]] = []
    chosen += [("best", clip, value) for clip, value in valued[:count]]
    chosen += [("worst", clip, value) for clip, value in valued[::-1][:last]]
    return chosen


def hear_clips(
    folders: Sequence[ScoredFolder],
    metric: str,
    num_clips: int,
    higher_is_better: bool = True,
    link_from: Path | None = None,
) -> Iterator[HeardClip]:
    """Choose clips and give each the address of its sound.

    Args:
        folders: systems.
        metric: what ranks them.
        num_clips: of each half, of each system; 0: none.
        higher_is_better: which end is the best.
        link_from: folder of a page that links to the files; None: sounds and pictures are put
            into the page.
    """
    for one in folders:
        if all(card.name != metric for card in one.scores.cards):
            continue
        for rank, clip, value in choose_clips(one.scores, metric, num_clips, higher_is_better):
            heard = HeardClip(one.scores.system, clip, rank, value)
            assert clip.file is not None, "only clips with a file are chosen"
            path = one.folder / clip.file
            yield _link(heard, path, link_from) if link_from else _embed(heard, path)


def _link(heard: HeardClip, path: Path, page_folder: Path) -> HeardClip:
    if not path.is_file():
        return replace(heard, trouble="the file is not there any more")
    if _is_changed(heard, path):
        return replace(heard, trouble=CHANGED)
    relative = os.path.relpath(path.absolute(), page_folder.absolute())
    return replace(heard, sound=quote(Path(relative).as_posix()))


def _embed(heard: HeardClip, path: Path) -> HeardClip:
    try:
        audio = read_audio(path)
        if _is_changed(heard, path):
            return replace(heard, trouble=CHANGED)
        sound = encode_audio(Audio(audio.samples, audio.sample_rate_hz), OPUS)
    except AudioError as error:
        return replace(heard, trouble=str(error))
    picture = draw_levels(audio.samples, audio.sample_rate_hz)
    return replace(
        heard, sound=data_url("audio/ogg", sound), picture=data_url("image/png", picture)
    )


def _is_changed(heard: HeardClip, path: Path) -> bool:
    return heard.clip.sha256 not in ("", file_sha256(path))


def draw_levels(samples: Float32[np.ndarray, " sample"], sample_rate_hz: int) -> bytes:
    """A small spectrogram without axes as PNG: time to the right, mel frequency upwards.

    80 dB from black to white, as in the big pictures; a column is the loudest of its frames, so
    that a click is not lost.
    """
    import matplotlib
    from PIL import Image

    levels = levels_db(samples, sample_rate_hz, PICTURE_ROWS)
    bounds = np.linspace(0, levels.shape[1], min(PICTURE_COLUMNS, levels.shape[1]) + 1).astype(int)
    columns = np.maximum.reduceat(levels, bounds[:-1], axis=1)
    steps = np.round((columns / RANGE_DB + 1) * (PICTURE_COLOURS - 1)).clip(0, PICTURE_COLOURS - 1)
    image = Image.fromarray(np.ascontiguousarray(steps[::-1]).astype(np.uint8))
    colours = matplotlib.colormaps[COLOURS](np.linspace(0, 1, PICTURE_COLOURS), bytes=True)
    image.putpalette(colours[:, :3].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
