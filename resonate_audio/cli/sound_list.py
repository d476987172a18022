"""A list of sounds to make: one a line, with what is said of each in columns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resonate_audio.cli.naming import Wanted
from resonate_audio.cli.options import FINISHES, LARGEST_SEED, MOST_TAKES, Making
from resonate_audio.core.edit import AT_ENDS, NO_ENDS, Finish
from resonate_audio.core.errors import InputError, ManifestError, ResonateError
from resonate_audio.core.files import name_inside
from resonate_audio.core.sampling import Sampling, shown_as

LONGEST_NAME = 200
"""Bytes of a file's name, so that what is added to it still fits on any disk."""
YES, NO = ("yes", "true", "1"), ("no", "false", "0")

SETTINGS = {shown_as(field).option[2:]: name for name, field in Sampling.model_fields.items()}
"""Columns that are settings of `Sampling`, named as their options."""
FINISHED = {option[2:]: name for name, (option, _, _) in FINISHES.items()}
"""Columns that are fields of `Finish`, named as their options."""


def read_list(path: Path, making: Making) -> list[Wanted]:
    """What a list wants; an empty cell leaves what the command line says.

    What the command line says of ends, such as a trim, is not done to loops.

    Args:
        path: a file as `data.prompts` reads it, ``-`` for what is piped in.
        making: what the command line says.

    Raises:
        ManifestError: the file cannot be read; a column is unknown or a cell cannot be used; names
            the line and the column.
    """
    from resonate_audio.data.prompts import read_prompt_rows

    return [_wanted(row.prompt, row.fields, row.place, making) for row in read_prompt_rows(path)]


def _wanted(prompt: str, fields: Mapping[str, Any], place: str, making: Making) -> Wanted:
    cells = {
        column: _read_cell(column, value, place)
        for column, value in fields.items()
        if value is not None and value != ""
    }
    settings = {SETTINGS[c]: value for c, value in cells.items() if c in SETTINGS}
    finish = {FINISHED[c]: value for c, value in cells.items() if c in FINISHED}
    is_loop = cells.get("loop", False)
    base = making.finish or Finish()
    try:
        if is_loop:
            refuse_ends(Finish(**finish))
            base = dataclasses.replace(base, **dict.fromkeys(AT_ENDS))
        finished = dataclasses.replace(base, **finish)
    except ResonateError as error:
        raise ManifestError(f"{place}: {error}") from error
    return Wanted(
        prompt,
        negative=cells.get("negative", making.negative),
        takes=cells.get("takes", making.takes),
        seed=cells.get("seed"),
        asked={**making.asked, **settings},
        finish=None if finished == Finish() else finished,
        is_loop=is_loop,
        name=cells.get("name", ""),
        place=place,
    )


def refuse_ends(finish: Finish | None) -> None:
    """Refuse a finish that would change the ends of a loop.

    Raises:
        InputError: names the option.
    """
    for name, value in (finish.at_ends() if finish else {}).items():
        option = FINISHES[name][0]
        raise InputError(f"{option} {value:g}: {NO_ENDS}")


def _read_cell(column: str, value: Any, place: str) -> Any:
    """What a cell says.

    Raises:
        ManifestError: there is no such column, or it cannot say that.
    """
    if column not in COLUMNS:
        raise ManifestError(
            f"{place}: the column {column[:50]} is unknown; there are prompt, {', '.join(COLUMNS)}"
        )
    try:
        return COLUMNS[column](value)
    except (ValueError, ResonateError) as error:
        raise ManifestError(f"{place}, column {column}: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a text")
    return value.strip()


def _name(value: Any) -> str:
    """A name for files, which may lie in a folder of their own.

    Raises:
        ValueError: it would lead out of the folder, or no file can have it.
    """
    name = name_inside(_text(value))
    wrong = "\\" in name or ":" in name or name.startswith("~") or set(name) == {"."}
    if wrong or not name.isprintable() or name.endswith("/"):
        raise ValueError(f"{name!r} is no name that a file can have everywhere")
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"a name of over {LONGEST_NAME} bytes")
    return name


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = _number(value)
        if number != int(number) or not least <= number <= most:
            raise ValueError(f"{value}: expected a whole number from {least} to {most}")
        try:
            return int(value)  # all digits of a long seed
        except ValueError:
            return int(number)  # 2.0, as spreadsheets write it

    return read


def _number(value: Any) -> float:
    """A number, from JSON or written out.

    Raises:
        ValueError: it is none.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{str(value)[:50]!r} is no number")
    return number


def _yes(value: Any) -> bool:
    """Whether a cell says yes.

    Raises:
        ValueError: it says neither yes nor no.
    """
    word = str(value).strip().lower()
    if word not in YES + NO:
        raise ValueError(f"{word[:50]!r}: expected yes or no")
    return word in YES


def _setting(name: str) -> Callable[[Any], Any]:
    kind = Sampling.model_fields[name].annotation

    def read(value: Any) -> Any:
        given = value if kind not in (int, float) else _number(value)
        if kind is int and given == int(given):
            given = int(given)
        settings: dict[str, Any] = {"duration_s": 1.0, name: given}
        return getattr(Sampling(**settings), name)

    return read


def _finish(name: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        return getattr(Finish(**{name: _number(value)}), name)

    return read


COLUMNS: dict[str, Callable[[Any], Any]] = {
    "name": _name,
    "negative": _text,
    "takes": _whole(1, MOST_TAKES),
    "loop": _yes,
    "seed": _whole(0, LARGEST_SEED),
    **{column: _setting(name) for column, name in SETTINGS.items()},
    **{column: _finish(name) for column, name in FINISHED.items()},
}
"""Columns beside the prompt, and what reads a cell of each."""
