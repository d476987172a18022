"""JSON and JSON lines, read with limits and written so that every reader finds the same lines."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from resonate_audio.core.documents.text import ErrorType, read_lines, read_text
from resonate_audio.core.errors import ManifestError
from resonate_audio.core.files import atomic_path

MAX_DEPTH = 64
"""Lists and objects inside each other; what reads the values goes down as deep."""
LARGEST_WHOLE = 2**63 - 1
MAX_DIGITS = 300
"""Of a whole number in a file of our own: still a float."""
_ODD_ESCAPE = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")
_INFINITE = (math.inf, -math.inf)
_SURROGATE_OR_NUL = re.compile("[\0\ud800-\udfff]")
_LINE_ENDS = re.compile("[\x1c-\x1e\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _whole(digits: str) -> int:
    if len(digits) < 19:
        return int(digits)
    value = int(digits) if len(digits) <= 20 else 2**64
    if not -LARGEST_WHOLE - 1 <= value <= LARGEST_WHOLE:
        raise ValueError(f"the number {_shorten(digits)} is out of range")
    return value


def _real(digits: str) -> float:
    value = float(digits)
    if value in _INFINITE:
        raise ValueError(f"the number {_shorten(digits)} is out of range")
    return value


def _long_whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"the number {_shorten(digits)} is out of range")
    return int(digits)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


class _TwiceError(ValueError):
    """A field of an object stands there twice."""


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(fields)
    if len(found) < len(fields):
        names = [name for name, _ in fields]
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise _TwiceError(f"the field {_shorten(twice)} stands there twice")
    return found


def _shorten(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:20]}…"


STRICT = json.JSONDecoder(
    parse_int=_whole, parse_float=_real, parse_constant=_no_number, object_pairs_hook=_object
)
"""Reads what others wrote."""
_OWN = json.JSONDecoder(parse_int=_long_whole, object_pairs_hook=_object)


def parse_json(text: str, place: str, error: ErrorType = ManifestError, finite: bool = True) -> Any:
    """Read one JSON value.

    Args:
        text: the JSON.
        place: where it stands, for errors.
        error: what is raised.
        finite: refuse NaN, infinite numbers and whole numbers beyond 64 bits; files that this
            package writes for itself may hold them.

    Raises:
        ResonateError: of the type ``error``; it is not JSON, nested deeper than `MAX_DEPTH`, or
            holds a field twice, a number out of range, half a surrogate pair or a NUL; names
            ``place``.
    """
    try:
        value = (STRICT if finite else _OWN).decode(text)
    except RecursionError as failure:
        raise too_deep(place, error) from failure
    except ValueError as failure:
        raise error(f"{place}: not JSON ({_reason(failure)})") from failure
    if "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        check_value(value, text, place, error)
    return value


def parse_body(body: bytes) -> Any:
    """Read the JSON of a request: as `json.loads` does, but for a field that stands there twice.

    Raises:
        json.JSONDecodeError: it is not JSON, or holds a field twice, which is named.
    """
    try:
        return json.loads(body, object_pairs_hook=_object)
    except _TwiceError as error:
        raise json.JSONDecodeError(str(error), "", 0) from error


def parse_object(
    text: str, place: str, error: ErrorType = ManifestError, finite: bool = True
) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ResonateError: of the type ``error``; as for `parse_json`, or it is another value.
    """
    value = parse_json(text, place, error, finite)
    if not isinstance(value, dict):
        raise error(f"{place}: expected an object, got {type(value).__name__}")
    return value


def read_json(path: Path, error: ErrorType = ManifestError, finite: bool = True) -> Any:
    """Read a JSON file; raises as `read_text` and `parse_json` do."""
    return parse_json(read_text(path, error), str(path), error, finite)


def read_object(
    path: Path, error: ErrorType = ManifestError, finite: bool = True
) -> dict[str, Any]:
    """Read a JSON file that holds an object; raises as `read_text` and `parse_object` do."""
    return parse_object(read_text(path, error), str(path), error, finite)


def read_json_lines(
    path: Path, error: ErrorType = ManifestError, finite: bool = True
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a file of JSON lines with the numbers of their lines; empty lines are passed.

    Raises:
        ResonateError: of the type ``error``; as for `text.read_lines` and `parse_object`.
    """
    for number, line in read_lines(path, error):
        if line.strip():
            yield number, parse_object(line, f"{path}, line {number}", error, finite)


def json_line(fields: Mapping[str, Any] | BaseModel, **dump: Any) -> str:
    """One line with its line feed; what any program takes for the end of a line is escaped.

    Args:
        fields: what the object holds.
        dump: options of pydantic's ``model_dump_json``, for a model.
    """
    text = (
        fields.model_dump_json(**dump)
        if isinstance(fields, BaseModel)
        else json.dumps(fields, ensure_ascii=False)
    )
    return _LINE_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any] | BaseModel], **dump: Any) -> int:
    """Write a file of JSON lines, whole or not at all; gives how many lines it has.

    Raises:
        OutputError: it cannot be written.
    """
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for count, row in enumerate(rows, start=1):  # noqa: B007 (the count is the answer)
            file.write(json_line(row, **dump))
    return count


def check_value(value: Any, text: str, place: str, error: ErrorType = ManifestError) -> None:
    """Refuse what a parser takes and nothing below does, if the text can hold such a thing at all.

    Raises:
        ResonateError: of the type ``error``; nested too deep, half a surrogate pair, or a NUL.
    """
    deep = text.count("[") + text.count("{") > MAX_DEPTH
    if not deep and not ("\\u" in text and _ODD_ESCAPE.search(text)):
        return
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        texts = (item for item in level if isinstance(item, str))
        odd = next((found for item in texts if (found := _SURROGATE_OR_NUL.search(item))), None)
        if odd is not None:
            raise error(f"{place}: holds {odd[0]!a}, which is no text: a NUL or half a character")
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return
    raise too_deep(place, error)


def too_deep(place: str, error: ErrorType) -> Exception:
    """The error about a document that is nested deeper than `MAX_DEPTH`."""
    return error(f"{place}: nested too deep; expected {MAX_DEPTH} levels at most")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else ()


def _reason(failure: ValueError) -> str:
    if not isinstance(failure, json.JSONDecodeError):
        return str(failure)
    line = f"line {failure.lineno}, " if failure.lineno > 1 else ""
    return f"{failure.msg} at {line}column {failure.colno}"
