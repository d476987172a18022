"""Files of ratings: what a person answered for a clip, in our CSV and in TTA-Bench's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.documents.csv_text import format_csv
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.core.files import atomic_path
from resonate_audio.evaluation.people.lines import read_lines, to_number

COLUMNS = ("rater", "clip", "system", "prompt", "axis", "score", "ms", "order")
NEEDED = COLUMNS[:6]
TTA_AXES = {
    "复杂度": "complexity",
    "喜爱度": "enjoyment",
    "质量": "quality",
    "一致性": "alignment",
    "实用性": "usefulness",
}
"""Columns of TTA-Bench's rating files, and what they are called here."""
TTA_PROBE = "S000"
"""How TTA-Bench names the system of its probes, which are no part of a mean."""
_TTA_CLIP = re.compile(r"(?P<system>S\d{3})_P(?P<prompt>\d{4})(\.wav)?")


class Rating(FrozenConfig):
    """One score that one person gave."""

    rater: str = Field(min_length=1)
    clip: str = Field(min_length=1)
    system: str = Field(min_length=1)
    prompt: str
    """Id of the prompt: clips of one prompt are alike."""
    axis: str = Field(min_length=1)
    score: float
    ms: float | None = None
    """Time from the start of playing to the answer."""
    order: int | None = None
    """Which in this rater's row it was."""


class Scale(FrozenConfig):
    """Lowest and highest score there is."""

    low: float = 1.0
    high: float = 5.0


def read_ratings(path: Path, scale: Scale | None = None) -> tuple[Rating, ...]:
    """Read ``rater,clip,system,prompt,axis,score[,ms,order]``, as a listening test writes it.

    Raises:
        ManifestError: a column is missing, a score is no number or outside of the scale, or
            somebody rated a clip twice on an axis; names the line.
    """
    placed = [(place, _rating(fields, place)) for place, fields in read_lines(path, NEEDED)]
    return _checked(path, placed, scale)


def read_tta_ratings(path: Path, scale: Scale | None = None) -> tuple[Rating, ...]:
    """Read TTA-Bench's form: ``wav_name, person_id`` and a column for each of five axes.

    The headers are Chinese, see `TTA_AXES`; a clip is called ``S001_P0001.wav``; probes (``S000``)
    are read as the system of that name. Could not be verified, since the ratings themselves are not
    public: the scale, which the published means (3 to 6) suggest to be 1 to 10.

    Raises:
        ManifestError: as `read_ratings`, or a clip has another kind of name.
    """
    placed = []
    for place, fields in read_lines(path, ("wav_name", "person_id", *TTA_AXES)):
        name = str(fields["wav_name"])
        found = _TTA_CLIP.fullmatch(name)
        if found is None:
            raise ManifestError(f"{place}: wav_name {name!r}; expected S001_P0001.wav")
        for column, axis in TTA_AXES.items():
            rating = Rating(
                rater=str(fields["person_id"]),
                clip=name.removesuffix(".wav"),
                system=found["system"],
                prompt=f"prompt_{found['prompt']}",
                axis=axis,
                score=to_number(fields[column], f"{place}, {column}"),
            )
            placed.append((place, rating))
    return _checked(path, placed, scale)


def write_ratings(path: Path, ratings: Sequence[Rating]) -> None:
    """Write the form that `read_ratings` reads."""
    rows = [[_cell(getattr(rating, name)) for name in COLUMNS] for rating in ratings]
    _write_csv(path, COLUMNS, rows)


def write_tta_ratings(path: Path, ratings: Sequence[Rating]) -> None:
    """Write TTA-Bench's form: one line for each rater and clip.

    Raises:
        InputError: a clip lacks an axis, or is not called as TTA-Bench calls clips.
    """
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for rating in ratings:
        if _TTA_CLIP.fullmatch(rating.clip) is None:
            raise InputError(f"clip {rating.clip!r}: TTA-Bench calls clips S001_P0001")
        rows.setdefault((rating.clip, rating.rater), {})[rating.axis] = rating.score
    lines = []
    for (clip, rater), scores in rows.items():
        missing = [axis for axis in TTA_AXES.values() if axis not in scores]
        if missing:
            raise InputError(f"clip {clip}, rater {rater}: no score of {missing[0]}")
        values = [_cell(scores[axis]) for axis in TTA_AXES.values()]
        lines.append([f"{clip.removesuffix('.wav')}.wav", rater, *values])
    _write_csv(path, ("wav_name", "person_id", *TTA_AXES), lines)


def _rating(fields: Mapping[str, Any], place: str) -> Rating:
    numbers = {
        name: to_number(fields[name], f"{place}, {name}")
        for name in ("score", "ms", "order")
        if fields.get(name) not in (None, "")
    }
    empty = [name for name in ("rater", "clip", "system", "axis") if not fields.get(name)]
    if empty or "score" not in numbers:
        raise ManifestError(f"{place}: {(empty or ['score'])[0]} is empty")
    return Rating(
        **{name: str(fields[name]) for name in ("rater", "clip", "system", "prompt", "axis")},
        score=numbers["score"],
        ms=numbers.get("ms"),
        order=int(numbers["order"]) if "order" in numbers else None,
    )


def _checked(
    path: Path, placed: Sequence[tuple[str, Rating]], scale: Scale | None
) -> tuple[Rating, ...]:
    if not placed:
        raise ManifestError(f"{path}: holds no rating")
    seen: dict[tuple[str, str, str], str] = {}
    for place, rating in placed:
        if scale is not None and not scale.low <= rating.score <= scale.high:
            raise ManifestError(
                f"{place}: score {rating.score:g} is outside of {scale.low:g} to {scale.high:g}"
            )
        key = (rating.rater, rating.clip, rating.axis)
        if key in seen:
            raise ManifestError(
                f"{place}: {rating.rater} rated {rating.clip} on {rating.axis} in {seen[key]}, too"
            )
        seen[key] = place
    return tuple(rating for _, rating in placed)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with atomic_path(path) as temporary:
        text = format_csv([header, *rows])
        temporary.write_text(text, encoding="utf-8", newline="")


def of_axis(ratings: Sequence[Rating], axis: str) -> list[Rating]:
    """Ratings of an axis, probes aside.

    Raises:
        InputError: there is none; names the axes that there are.
    """
    chosen = [rating for rating in ratings if rating.axis == axis and rating.system != TTA_PROBE]
    if not chosen:
        known = ", ".join(sorted({rating.axis for rating in ratings})) or "none"
        raise InputError(f"no rating of {axis}; there are ratings of {known}")
    return chosen
