"""Clips that people have rated, in the forms that PAM's ratings come in, and a metric beside them.

Two forms are read. PAM's own ``scores.csv`` [github.com/soham97/PAM] has a line a clip: ``Model``,
``File Name`` (without ``.wav``), ``OVL``, ``REL`` and sometimes ``Text``. The second is JSONL with
``data_path`` and a list of ratings an axis, as audiobox-aesthetics publishes for the same clips.

Could not be verified, since the file is on Zenodo only: on which scale PAM's OVL and REL are, and
whether the paper's Table 2 counts the recordings (``real``); so both are reported.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import ManifestError
from resonate_audio.core.paths import slashed
from resonate_audio.evaluation.people.correlation import JudgedClips
from resonate_audio.evaluation.people.lines import read_lines, to_number
from resonate_audio.evaluation.scores.scored import SCORES, SystemScores, read_scores
from resonate_audio.evaluation.statistics import clip_name

REAL = "real"
"""How PAM names recordings among its systems."""
PAM_COLUMNS = ("Model", "File Name")
PATHS = ("file", "path", "data_path", "File Name")
"""Columns that may hold where a clip is."""
SYSTEMS = ("system", "Model", "model")
"""Columns that may hold who made it."""
WORDS = {*PATHS, *SYSTEMS, "Text", "text", "prompt", "caption", "id", "seed"}
"""Columns of a table of metrics that are no metric."""

Values = dict[str, dict[str, float | None]]
"""By system/clip, then by metric; None: the clip failed."""


class RatedClip(FrozenConfig):
    """One clip and what people said of it."""

    system: str
    name: str
    """File's name without its suffix."""
    prompt: str
    """Its text if known; else the name, which PAM gives to the clips of all systems alike."""
    task: str = ""
    """``audio`` or ``music``, if its path says so."""
    means: dict[str, float]
    """By axis."""
    ratings: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """By axis; empty where only means are known."""

    @property
    def key(self) -> str:
        """System and name, as metrics are joined by."""
        return f"{self.system}/{self.name}"


class Joined(FrozenConfig):
    """Who was joined and who was not."""

    left_out: tuple[str, ...] = ()
    """Rated clips that failed, and for which the metric has no worst value."""
    unrated: int = 0
    """Scored clips that nobody rated."""


def read_rated_clips(path: Path, task: str = "audio") -> tuple[RatedClip, ...]:
    """Read ratings in either form, sorted by system and name.

    Args:
        path: ``.csv`` or ``.jsonl``.
        task: which half of PAM, where paths tell them apart.

    Raises:
        ManifestError: a column is missing, a rating is no number, or a clip stands there twice;
            names file and line.
    """
    is_lines = path.suffix.lower() == ".jsonl"
    read, needed = (_aes_line, ()) if is_lines else (_pam_line, PAM_COLUMNS)
    clips: dict[str, tuple[str, RatedClip]] = {}
    for place, fields in read_lines(path, needed):
        clip = read(fields, place)
        if clip.task not in ("", task):
            continue
        if clip.key in clips:
            raise ManifestError(f"{place}: {clip.key} stands in {clips[clip.key][0]}")
        clips[clip.key] = (place, clip)
    if not clips:
        raise ManifestError(f"{path}: holds no rated clip of {task}")
    return tuple(clips[key][1] for key in sorted(clips))


def read_values(path: Path) -> Values:
    """Read what metrics say: a folder of a scored system, or a CSV or JSONL ``file, metric, …``.

    Raises:
        ManifestError: no such file, no column of files, a value that is no number, a clip twice.
    """
    is_folder = os.path.isdir(path)  # unlike Path.is_dir, false for a name that is too long
    if is_folder or path.name == SCORES:
        return values_of(read_scores(path if is_folder else path.parent))
    values: Values = {}
    for place, fields in read_lines(path):
        key = _key(fields, place)
        if key in values:
            raise ManifestError(f"{place}: {key} stands there twice")
        values[key] = {
            name: to_number(value, f"{place}, {name}")
            for name, value in fields.items()
            if name not in WORDS
        }
    return values


def read_all_values(paths: Sequence[Path]) -> Values:
    """Read several files or folders; one clip may have some metrics in one and some in another.

    Raises:
        ManifestError: as `read_values`, or two of them have the same metric of the same clip.
    """
    table: Values = {}
    for path in paths:
        for key, parts in read_values(path).items():
            there = table.setdefault(key, {})
            twice = sorted(there.keys() & parts.keys())
            if twice:
                raise ManifestError(f"{path}: {twice[0]} of {key} was given before; leave one out")
            there.update(parts)
    return table


def values_of(scores: SystemScores) -> Values:
    """What a scored system's metrics say of its clips, by the names of their files.

    A clip without a file goes by its prompt's id. Values that only a whole set has are none of a
    clip's.
    """
    columns = {
        card.name: scores.values(card.name)
        for card in scores.cards
        if card.name not in scores.set_values
    }
    values: Values = {}
    for index, clip in enumerate(scores.clips):
        name = PurePosixPath(clip.file).stem if clip.file else clip.id
        if f"{scores.system}/{name}" in values:
            raise ManifestError(f"{scores.system}: {clip_name(clip)} has the file of another clip")
        values[f"{scores.system}/{name}"] = {
            metric: column[index] for metric, column in columns.items()
        }
    return values


def join(
    rated: Sequence[RatedClip], values: Values, axis: str, metric: str
) -> tuple[JudgedClips, Joined]:
    """Put a metric beside an axis.

    Raises:
        ManifestError: a rated clip was not scored, or neither axis nor metric are known.
    """
    for clip in rated:
        if axis not in clip.means:
            raise ManifestError(f"{clip.key}: no rating of {axis}; it has {', '.join(clip.means)}")
        if metric not in values.get(clip.key, {}):
            missing = sum(metric not in values.get(other.key, {}) for other in rated)
            raise ManifestError(
                f"{clip.key}: rated, but {metric} has no value for it ({missing} such of "
                f"{len(rated)}); score every rated clip, under its system and file name"
            )
    kept = [(clip, value) for clip in rated if (value := values[clip.key][metric]) is not None]
    judged = JudgedClips(
        np.array([clip.means[axis] for clip, _ in kept], float),
        np.array([value for _, value in kept], float),
        tuple(clip.prompt for clip, _ in kept),
        tuple(clip.system for clip, _ in kept),
    )
    left_out = tuple(clip.key for clip in rated if values[clip.key][metric] is None)
    unrated = len(values.keys() - {clip.key for clip in rated})
    return judged, Joined(left_out=left_out, unrated=unrated)


def rating_table(rated: Iterable[RatedClip], axis: str) -> Float[np.ndarray, "clip rating"] | None:
    """Single ratings of an axis, NaN where a clip has fewer; None where only means are known."""
    rows = [clip.ratings.get(axis, ()) for clip in rated]
    width = max((len(row) for row in rows), default=0)
    if width == 0:
        return None
    return np.array([[*row, *[math.nan] * (width - len(row))] for row in rows], float)


def _pam_line(fields: Mapping[str, Any], place: str) -> RatedClip:
    name = re.sub(r"\.wav$", "", str(fields["File Name"]), flags=re.IGNORECASE)
    axes = {key: value for key, value in fields.items() if key and key not in WORDS}
    return RatedClip(
        system=fields["Model"],
        name=name,
        prompt=fields.get("Text") or name,
        means={axis: to_number(value, f"{place}, {axis}") for axis, value in axes.items()},
    )


def _aes_line(fields: Mapping[str, Any], place: str) -> RatedClip:
    path = PurePosixPath(_file(fields, place))
    if len(path.parts) < 2:
        raise ManifestError(f"{place}: {path} has no folder to say which system made it")
    ratings = {
        axis: tuple(to_number(value, f"{place}, {axis}") for value in values)
        for axis, values in fields.items()
        if isinstance(values, list) and values
    }
    task = path.parts[-3] if len(path.parts) > 2 else ""
    return RatedClip(
        system=path.parts[-2],
        name=path.stem,
        prompt=path.stem,
        task=task if task in ("audio", "music") else "",
        means={axis: float(np.mean(values)) for axis, values in ratings.items()},
        ratings=ratings,
    )


def _key(fields: Mapping[str, Any], place: str) -> str:
    """System and name of a clip: the system from its own column, or from the folder."""
    path = PurePosixPath(_file(fields, place))
    system = next((str(fields[name]) for name in SYSTEMS if fields.get(name)), path.parent.name)
    if not system:
        raise ManifestError(f"{place}: {path} has no folder, and there is no column system")
    return f"{system}/{path.stem}"


def _file(fields: Mapping[str, Any], place: str) -> str:
    for name in PATHS:
        if fields.get(name):
            return slashed(str(fields[name]))
    raise ManifestError(f"{place}: no file; expected one of the columns {', '.join(PATHS)}")
