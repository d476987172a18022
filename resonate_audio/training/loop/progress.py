"""What a run says while it goes: metrics file, progress line, loss plot."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from resonate_audio.core.documents.json_text import json_line, parse_object
from resonate_audio.core.documents.text import read_text
from resonate_audio.core.errors import TrainingError
from resonate_audio.core.files import append_text, atomic_path
from resonate_audio.core.progress import format_duration

FEW_POINTS = 10
"""Fewer than these are drawn as points, too."""


def keep_metrics_until(path: Path, step: int) -> None:
    """Drop a half-written last line and those after ``step``: a resumed run repeats them."""
    if not path.exists():
        return
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(map(json_line, kept)), encoding="utf-8")


def append_metrics(path: Path, values: dict[str, Any]) -> None:
    """Add one JSON line.

    Raises:
        OutputError: it cannot be written, or the disk is full.
    """
    append_text(path, json_line(values))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics file.

    Raises:
        TrainingError: it cannot be read, or a line is broken; names the line.
    """
    lines = read_text(path, TrainingError).split("\n")
    return [
        parse_object(line, f"{path}, line {number}", TrainingError, finite=False)
        for number, line in enumerate(lines[:-1], 1)
        if line
    ]


@runtime_checkable
class Stream(Protocol):
    """The part of a text stream that progress needs."""

    def write(self, text: str, /) -> int:
        """Append text."""

    def flush(self) -> None:
        """Show it now."""

    def isatty(self) -> bool:
        """Whether someone is watching."""


class Silence:
    """A stream that nobody reads."""

    def write(self, text: str, /) -> int:
        """Forget the text."""
        return len(text)

    def flush(self) -> None:
        """There is nothing to show."""

    def isatty(self) -> bool:
        """Nobody is watching."""
        return False


class ProgressLine:
    """One line that follows the run: rewritten in place on a terminal, appended elsewhere."""

    def __init__(self, num_steps: int, start_step: int, stream: Stream | None = None) -> None:
        self.num_steps = num_steps
        self.start_step = start_step
        self.stream: Stream = stream or sys.stderr
        self.started, self.started_cpu = time.monotonic(), time.process_time()
        self._open_line = False

    def eta_s(self, step: int) -> float:
        """Seconds to the end at the speed since this process began."""
        done = max(1, step - self.start_step)
        return (time.monotonic() - self.started) / done * (self.num_steps - step)

    def show(self, step: int, values: dict[str, float]) -> None:
        """Say where the run is."""
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        eta = format_duration(self.eta_s(step))
        text = f"step {step}/{self.num_steps}  {numbers}  ETA {eta}"
        terminal = self.stream.isatty()
        self.stream.write(f"\r\x1b[K{text}" if terminal else text + "\n")
        self.stream.flush()
        self._open_line = terminal

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self.stream.write(("\n" if self._open_line else "") + text + "\n")
        self.stream.flush()
        self._open_line = False

    def close(self) -> None:
        """Nothing more will be shown."""


def plot_metrics(metrics: Path, picture: Path, smooth: int = 25) -> None:
    """Draw every loss of a metrics file against the step, faint, with its running mean.

    A few values are points, too; steps are whole numbers.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    lines = read_metrics(metrics)
    seen = dict.fromkeys(name for line in lines for name in line)
    names = [name for name in seen if name == "loss" or name.endswith("_loss")]
    if not names:
        return
    figure = Figure(figsize=(8, 2.6 * len(names)), layout="constrained")
    for row, name in enumerate(names):
        axes = figure.add_subplot(len(names), 1, row + 1)
        steps = [line["step"] for line in lines if name in line]
        values = [line[name] for line in lines if name in line]
        marker = "o" if len(values) < FEW_POINTS else ""  # a line through one point is nothing
        axes.plot(steps, values, marker=marker, alpha=0.3, color="tab:blue")
        axes.plot(steps, running_mean(values, smooth), color="tab:blue")
        axes.set(xlabel="step", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=110)


def running_mean(values: list[float], width: int) -> list[float]:
    """Mean of the last ``width`` values, or of all so far at the beginning."""
    means = []
    total = 0.0
    for index, value in enumerate(values):
        total += value - (values[index - width] if index >= width else 0.0)
        means.append(total / min(index + 1, width))
    return means
