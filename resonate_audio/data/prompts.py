"""The one reader of prompts: text, CSV, JSON lines, TTA-Bench's JSON, or what is piped in."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resonate_audio.core.documents.csv_text import csv_rows
from resonate_audio.core.documents.json_text import parse_json, parse_object
from resonate_audio.core.documents.text import STDIN, read_text
from resonate_audio.core.errors import ManifestError
from resonate_audio.core.paths import input_path

FIELDS = ("prompt", "prompt_text", "caption", "text")
"""Names under which an object or a table may hold its text, the first found is taken."""
TEXT, JSON, LINES, CSV, TSV = "text, one prompt a line", "JSON", "JSON lines", "CSV", "TSV"
SUFFIXES = {".json": JSON, ".jsonl": LINES, ".ndjson": LINES, ".csv": CSV, ".tsv": TSV}
"""How a file of that suffix is read; any other is text. A ``#`` begins a line for people."""
NO_PROMPTS = (".yaml", ".yml", ".toml", ".xml", ".html", ".parquet", ".xlsx")


@dataclass(frozen=True)
class PromptRow:
    """One prompt as it stands in its file."""

    number: int
    """Counted from 1 among the prompts, so that an empty line moves none."""
    place: str
    """File and line, for errors."""
    prompt: str
    """Without white space around it; never empty."""
    fields: Mapping[str, Any]
    """Every other field of its line."""


def read_prompts(path: Path) -> tuple[str, ...]:
    """Texts of a file in their order; raises as `read_prompt_rows` does."""
    return tuple(row.prompt for row in read_prompt_rows(path))


def read_prompt_rows(path: Path) -> list[PromptRow]:
    """Prompts of a file in their order, with what else is said of them.

    Args:
        path: ``.json``: a list of texts or objects, such as TTA-Bench's files. ``.jsonl``: one
            object a line. ``.csv`` and ``.tsv``: a table with a header. Anything else: one prompt
            a line. Empty lines and lines that begin with ``#`` are passed. Objects and tables have
            ``prompt``, ``prompt_text``, ``caption`` or ``text``. ``-`` reads what is piped in and
            finds out which of these it is. What comes with the package is found by its name,
            ``practice.jsonl``, from anywhere.

    Raises:
        ManifestError: the file cannot be read, looks like another format than its name says, or
            holds no prompt; a line is broken; a prompt is empty or no text. Names the line.
    """
    text = read_text(input_path(path))
    looks = guess_format(text)
    said = _said_format(path) or looks
    says_something = any(map(_says_something, text.split("\n")))
    if said == CSV and looks == TEXT and ";" in _first_line(text):
        raise ManifestError(f"{path}: its columns are parted by ;, expected commas (or .tsv, tabs)")
    if said != looks and says_something and not (said == JSON and _is_one_line(text)):
        raise ManifestError(
            f"{path}: named as {said}, but it looks like {looks}; give it the suffix "
            f"{_suffix(looks)} if that is what it is"
        )
    readers = {JSON: _json_rows, LINES: _line_rows, CSV: _table_rows, TSV: _table_rows}
    found = enumerate(readers.get(said, _text_rows)(text, path), 1)
    rows = [_row(number, place, fields) for number, (place, fields) in found]
    if not rows:
        raise ManifestError(f"{path}: no prompt in it; write one a line")
    return rows


def guess_format(text: str) -> str:
    """What a text looks like by its first line that says something."""
    first = _first_line(text)
    begins, goes_on = first[:1], first[1:].lstrip()[:1]
    if begins == "{" and goes_on in ('"', "}"):
        return LINES
    if (begins == "[" and goes_on in ("", "{", '"', "[", "]")) or first == "{":
        return JSON
    for format, sign in ((CSV, ","), (TSV, "\t")):
        cells = [cell.strip().strip('"').lower() for cell in first.split(sign)]
        if len(cells) > 1 and any(name in cells for name in FIELDS):
            return format
    return CSV if first.strip('"').lower() in FIELDS[:3] else TEXT


def _first_line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.split("\n") if _says_something(line)), "")


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _is_one_line(text: str) -> bool:
    return "\n" not in text.strip()


def _said_format(path: Path) -> str | None:
    """What the name says; None where it says nothing."""
    suffix = path.suffix.lower()
    if suffix in NO_PROMPTS:
        raise ManifestError(f"{path}: prompts come as .txt, .csv, .jsonl, .json or -")
    return None if path == STDIN else SUFFIXES.get(suffix, TEXT)


def _suffix(format: str) -> str:
    return next((suffix for suffix, name in SUFFIXES.items() if name == format), ".txt")


Fields = tuple[str, Mapping[str, Any]]


def _text_rows(text: str, path: Path) -> Iterator[Fields]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        if _says_something(line):
            yield f"{path}, line {number}", {"prompt": line}


def _line_rows(text: str, path: Path) -> Iterator[Fields]:
    for number, line in enumerate(text.split("\n"), 1):
        if _says_something(line):
            place = f"{path}, line {number}"
            yield place, parse_object(line, place)


def _json_rows(text: str, path: Path) -> Iterator[Fields]:
    listed = parse_json(text, str(path))
    if not isinstance(listed, list):
        raise ManifestError(f"{path}: expected a list of objects, got {type(listed).__name__}")
    for number, item in enumerate(listed, 1):
        place = f"{path}, item {number}"
        if not isinstance(item, dict | str):
            raise ManifestError(f"{place}: expected an object, got {type(item).__name__}")
        yield place, {"prompt": item} if isinstance(item, str) else item


def _table_rows(text: str, path: Path) -> Iterator[Fields]:
    delimiter = "\t" if guess_format(text) == TSV else ","
    lines = io.StringIO(text, newline="\n")
    for number, cells in csv_rows(lines, path, delimiter=delimiter, comments=True):
        lowered = {name.lower(): cell for name, cell in cells.items()}
        if len(lowered) < len(cells):
            raise ManifestError(f"{path}: two columns have one name, but for capitals")
        if any(cell.strip() for cell in cells.values()):  # spreadsheets end with empty rows
            yield f"{path}, line {number}", lowered


def _row(number: int, place: str, fields: Mapping[str, Any]) -> PromptRow:
    name = next((name for name in FIELDS if name in fields), None)
    if name is None:
        raise ManifestError(f"{place}: expected one of the fields {', '.join(FIELDS)}")
    prompt = fields[name]
    if not isinstance(prompt, str) or not prompt.strip():
        raise ManifestError(f"{place}: {name} is empty or no text; describe a sound")
    rest = {key: value for key, value in fields.items() if key != name}
    return PromptRow(number, place, prompt.strip(), rest)
