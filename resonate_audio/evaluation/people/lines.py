"""Tables that people hand in, CSV or JSONL; every line with its number: mistakes have a place."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resonate_audio.core.errors import ManifestError

Line = tuple[str, Mapping[str, Any]]
"""Where it stands, as in "ratings.csv, line 3", and its fields."""


def read_lines(path: Path, needed: Sequence[str] = ()) -> list[Line]:
    """Read a ``.jsonl`` of objects, or else a CSV with a header.

    Args:
        path: the file, UTF-8 with or without a byte order mark.
        needed: columns that a CSV must have.

    Raises:
        ManifestError: no such file, a column is missing, or a line is broken; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot read it ({error})") from error
    return _read_objects(text, path) if path.suffix == ".jsonl" else _read_csv(text, path, needed)


def to_number(value: Any, place: str) -> float:
    """Read a finite number.

    Raises:
        ManifestError: it is none; names the place.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ManifestError(f"{place}: expected a number, got {value!r}")
    return number


def _read_objects(text: str, path: Path) -> list[Line]:
    lines: list[Line] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise ManifestError(f"{place}: not JSON ({error.msg})") from error
        if not isinstance(value, dict):
            raise ManifestError(f"{place}: expected an object, got {type(value).__name__}")
        lines.append((place, value))
    return lines


def _read_csv(text: str, path: Path, needed: Sequence[str]) -> list[Line]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    lines: list[Line] = []
    try:
        columns = reader.fieldnames or ()
        missing = [name for name in needed if name not in columns]
        if missing:
            raise ManifestError(
                f"{path}: no column {missing[0]}; it has {', '.join(columns) or 'none'}"
            )
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise ManifestError(f"{place}: another number of fields than the header has")
            lines.append((place, row))
    except csv.Error as error:
        raise ManifestError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
    return lines
