"""CSV tables, row by row: strict about quotes, and every row as long as the header.

Texts that a spreadsheet would take for a formula (``=…``, ``+…``, ``-…``, ``@…``) are written with
an apostrophe before them, as spreadsheets themselves have it, and read without.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from resonate_audio.core.documents.text import ErrorType, one_line, read_lines, refuse_nul
from resonate_audio.core.errors import ManifestError

_FORMULA = re.compile(r"'*\s*[=+\-@]")
"""A formula, or a text that was written so that it is none."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""What looks like the beginning of a formula and is none."""
Row = tuple[int, dict[str, str]]
"""The last line that a row stands on, and its cells by column."""


def parse_csv(
    lines: Iterable[str], path: Path, delimiter: str = ",", error: ErrorType = ManifestError
) -> Iterator[tuple[int, list[str]]]:
    """Cells of each row, with the number of its last line; empty rows are passed.

    Raises:
        ResonateError: of the type ``error``; a quote is never closed, a cell is over 128 kB, or
            there is a NUL; names the line.
    """
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for cells in rows:
            if cells:
                yield rows.line_num, [_as_meant(refuse_nul(cell, path, error)) for cell in cells]
    except csv.Error as failure:
        raise error(f"{path}:{rows.line_num}: not CSV ({one_line(failure)})") from failure


def read_csv(
    path: Path,
    columns: Sequence[str] = (),
    delimiter: str = ",",
    error: ErrorType = ManifestError,
) -> Iterator[Row]:
    """Rows of a UTF-8 file; raises as `text.read_lines` and `csv_rows` do."""
    lines = (line for _, line in read_lines(path, error))
    return csv_rows(lines, path, columns, delimiter, error)


def csv_rows(
    lines: Iterable[str],
    path: Path,
    columns: Sequence[str] = (),
    delimiter: str = ",",
    error: ErrorType = ManifestError,
    comments: bool = False,
) -> Iterator[Row]:
    """Rows of a table, by its header or by the columns given.

    Rows that begin with ``#`` are for people, where ``comments`` says so.

    Raises:
        ResonateError: of the type ``error``; as for `parse_csv`, a column stands there twice, or
            a row has another number of cells than the header; names the line.
    """
    names = list(columns)
    for number, cells in parse_csv(lines, path, delimiter, error):
        if comments and cells[0].lstrip().startswith("#"):
            continue
        if not names:
            names = [name.strip() for name in cells]
            twice = next((name for name in names if name and names.count(name) > 1), None)
            if twice is not None:
                raise error(f"{path}:{number}: the column {twice} stands there twice")
        elif len(cells) != len(names):
            raise error(f"{path}:{number}: {len(cells)} cells, expected {len(names)}")
        else:
            yield number, dict(zip(names, cells, strict=True))


def header_of(path: Path, delimiter: str = ",", error: ErrorType = ManifestError) -> list[str]:
    """Names of the columns; none for an empty file."""
    for _, line in read_lines(path, error):
        first = next(parse_csv([line], path, delimiter, error), (1, []))
        return [name.strip() for name in first[1]]
    return []


def format_csv(rows: Iterable[Sequence[object]]) -> str:
    """Rows as text that `csv_rows` reads back; None is an empty cell, and no text is a formula.

    A lone carriage return, too, stands between marks.
    """
    buffer = io.StringIO(newline="")
    plain = csv.writer(buffer, lineterminator="\n")
    marked = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = [_as_text(cell) for cell in row]
        (marked if any("\r" in cell for cell in cells) else plain).writerow(cells)
    return buffer.getvalue()


def _as_text(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _as_meant(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
