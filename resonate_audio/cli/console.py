"""What commands say: rich on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

StepReport = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

PLAIN_INTERVAL_S = 5.0


def say(text: str) -> None:
    """A line about the work, on stderr, so that stdout holds results only."""
    print(text, file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on stdout: drawn on a terminal, aligned plain text in a pipe or a file."""
    if sys.stdout.isatty():
        _print_rich(columns, rows, title)
        return
    widths = [max(len(cell) for cell in cells) for cells in zip(columns, *rows, strict=True)]
    for cells in (columns, *rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print(line.rstrip())


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
        task = progress.add_task(escape(label), total=None)
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
