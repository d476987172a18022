"""Tables that people hand in, CSV or JSONL; every line with its number: mistakes have a place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resonate_audio.core.documents.csv_text import header_of, read_csv
from resonate_audio.core.documents.json_text import read_json_lines
from resonate_audio.core.documents.text import listed
from resonate_audio.core.errors import ManifestError

Line = tuple[str, Mapping[str, Any]]
"""Where it stands, as in "ratings.csv, line 3", and its fields."""


def read_lines(path: Path, needed: Sequence[str] = ()) -> list[Line]:
    """Read a ``.jsonl`` of objects, or else a CSV with a header.

    Args:
        path: the file, UTF-8 with or without a byte order mark.
        needed: columns or fields that must be there.

    Raises:
        ManifestError: no such file, a column is missing, or a line is broken; names the line.
    """
    if path.suffix.lower() == ".jsonl":
        return [
            _complete(f"{path}, line {number}", line, needed)
            for number, line in read_json_lines(path)
        ]
    header = header_of(path)
    missing = [name for name in needed if name not in header]
    if missing:
        raise ManifestError(f"{path}: no column {missing[0]}; it has {listed(header)}")
    return [(f"{path}, line {number}", line) for number, line in read_csv(path)]


def _complete(place: str, fields: Mapping[str, Any], needed: Sequence[str]) -> Line:
    missing = [name for name in needed if name not in fields]
    if missing:
        raise ManifestError(f"{place}: no field {missing[0]}")
    return place, fields


def to_number(value: Any, place: str) -> float:
    """Read a finite number.

    Raises:
        ManifestError: it is none; names the place.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ManifestError(f"{place}: expected a number, got {value!r:.80}")
    return number
