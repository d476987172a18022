"""What commands say: rich on a terminal, plain lines everywhere else.

Everything that is said goes through here (a test sees to it): texts come from captions, files and
servers, and may hold signs that would act on a terminal instead of being read.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from resonate_audio.core.text import visible, visible_json

StepReport = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

PLAIN_INTERVAL_S = 5.0
LONGEST = 2000
"""Signs of a line about the work."""


def say(text: str) -> None:
    """A line about the work, on stderr, so that stdout holds results only."""
    print(visible(text, LONGEST), file=sys.stderr, flush=True)


def print_text(text: object = "", end: str = "\n") -> None:
    """A result, on stdout."""
    print(visible(str(text), None), end=end, flush=True)


def print_as_json(value: Any) -> None:
    """A result for programs, on stdout: signs that the stream cannot encode are escaped."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, indent=2, ensure_ascii=not is_utf8)
    print(visible_json(text), flush=True)


def prepare_streams() -> None:
    """Make the streams of the process ones that any text can be written to, and results alone.

    A Windows shell or a redirection may know only some signs; a daemon may have no stream at all;
    and C libraries write to stdout what is no result, which goes to stderr from here on.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        with suppress(AttributeError, ValueError):
            getattr(sys, name).reconfigure(errors="backslashreplace")
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        kept, about = sys.stdout.fileno(), sys.stderr.fileno()
        results = os.dup(kept)
        os.dup2(about, kept)
        sys.stdout = open(  # noqa: SIM115
            results,
            "w",
            encoding=sys.stdout.encoding,
            errors="backslashreplace",
            buffering=1 if os.isatty(results) else -1,
        )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on stdout: drawn on a terminal, aligned plain text in a pipe or a file."""
    rows = [[_cell(cell) for cell in cells] for cells in rows]
    if sys.stdout.isatty():
        _print_rich(columns, rows, title)
        return
    widths = [max(len(cell) for cell in cells) for cells in zip(columns, *rows, strict=True)]
    for cells in (columns, *rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print(line.rstrip())


def _cell(text: str) -> str:
    return visible(text, None).replace("\n", "\\n").replace("\t", " ")


def print_levels(levels: Any, width: int) -> None:
    """A picture on a terminal, two rows to a line: coloured where it can be, else in greys.

    Args:
        levels: array (row, column) from 0, dark, to 1, bright; the first row at the bottom.
        width: columns of the terminal to use.
    """
    import numpy as np
    from rich.console import Console
    from rich.text import Text

    columns = np.array_split(levels, min(width, levels.shape[1]), axis=1)
    shown = np.stack([column.max(axis=1) for column in columns], axis=1)[::-1]
    console = Console()
    for upper, lower in zip(shown[::2], shown[1::2], strict=True):
        if console.color_system is None:
            greys = np.maximum(upper, lower) * (len(GREYS) - 1)
            print("".join(GREYS[round(float(grey))] for grey in greys))
        else:
            cells = zip(upper, lower, strict=True)
            styles = [f"{colour_of(float(a))} on {colour_of(float(b))}" for a, b in cells]
            console.print(Text.assemble(*(("▀", style) for style in styles)))


GREYS = " ░▒▓█"
COLOURS = ((12, 12, 20), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10),
           (252, 255, 164))  # fmt: skip
"""From silent to loud: the colours of the pictures beside the sounds, at equal steps."""


def colour_of(level: float) -> str:
    """A colour between two neighbours of `COLOURS`, as ``#rrggbb``."""
    place = min(max(level, 0.0), 1.0) * (len(COLOURS) - 1)
    below = min(int(place), len(COLOURS) - 2)
    pairs = zip(COLOURS[below], COLOURS[below + 1], strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - below)):02x}" for a, b in pairs)


@contextmanager
def step_progress(label: str) -> Iterator[StepReport]:
    """Show how far the steps are: a bar on a terminal, a line every few seconds elsewhere."""
    if sys.stderr.isatty():
        with _rich_progress(label) as report:
            yield report
    else:
        yield _PlainProgress(label).report


class _PlainProgress:
    """Lines for logs: the first step at once, then not more often than every five seconds."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.last_s = float("-inf")

    def report(self, done: int, total: int) -> None:
        now_s = time.monotonic()
        if done == total or now_s - self.last_s >= PLAIN_INTERVAL_S:
            self.last_s = now_s
            say(f"{self.label}: step {done} of {total}")


@contextmanager
def _rich_progress(label: str) -> Iterator[StepReport]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeLeftColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(visible(label, 80)), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
