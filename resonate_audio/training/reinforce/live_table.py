"""A run's numbers as a table that stays in place, or as plain lines where nobody watches."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resonate_audio.core.progress import format_duration
from resonate_audio.training.loop.progress import ProgressLine, Stream

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

NUM_RECENT = 10
SPARK_WIDTH = 24
BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-=+*%#"

LABELS = {
    "reward/mean": "reward",
    "reward/std": "spread of takes",
    "reward/": "reward: {}",
    "held_out/": "held-out: {}",
    "evaluation/": "new prompts: {}",
    "kl": "KL",
    "velocity_kl": "velocity distance",
    "velocity_norm": "velocity, of the first",
    "ratio/max_abs_dev": "ratio, off 1",
    "ratio/noise_floor": "ratio, noise floor",
    "ratio/mean": "ratio, mean",
    "clip/high": "clipped above",
    "clip/low": "clipped below",
    "advantage/frac_zero_std": "prompts that tie",
    "loss": "loss",
    "grad_norm": "gradient norm",
    "detect/": "sound: {}",
    "seconds/": "seconds: {}",
}
"""What rows are called, in their order; a name that ends in a slash stands for all that begin so.
Others follow under their own names."""
IN_THE_TITLE = ("steps/s", "steps_per_s")
PLAIN = {"kl": "KL", "clip": "clipped", "loss": "loss"}


@dataclass
class Column:
    """The values of one name so far."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=SPARK_WIDTH))
    step: int = 0
    """Of the last value."""

    def add(self, step: int, value: float) -> None:
        """Append a value."""
        self.recent.append(value)
        self.step = step

    def mean(self) -> float:
        """Mean of the last ten."""
        last = list(self.recent)[-NUM_RECENT:]
        return sum(last) / len(last)


class LiveTable(ProgressLine):
    """Follows a reinforcement run; stands in for a `ProgressLine`.

    On a terminal it is one table that is redrawn in place; elsewhere each call writes one line
    with the numbers that matter most. Use it in a ``with`` block, or call `close`: what is printed
    meanwhile appears above the table.
    """

    def __init__(self, num_steps: int, start_step: int, stream: Stream | None = None) -> None:
        super().__init__(num_steps, start_step, stream)
        self.columns: dict[str, Column] = {}
        self._live: Live | None = None

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Say where the run is."""
        for name, value in values.items():
            self.columns.setdefault(name, Column()).add(step, value)
        if not self.stream.isatty() or os.environ.get("TERM") == "dumb":
            self.stream.write(self.plain_line(step, values) + "\n")
            self.stream.flush()
            return
        live = self._live or self._open()
        live.update(self._draw(step, live.console.encoding), refresh=True)

    def say(self, text: str) -> None:
        """Print a line of its own, above the table where there is one."""
        if self._live is None:
            super().say(text)
            return
        from rich.text import Text

        self._live.console.print(Text(text))

    def close(self) -> None:
        """Leave the table as it is; a later `show` begins another."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> LiveTable:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def plain_line(self, step: int, values: Mapping[str, float]) -> str:
        """Step, reward, held-out scores, KL, clipped share, loss, seconds, and the time left."""
        shown, parts = dict(values), [f"step {step}/{self.num_steps}"]
        if "reward/mean" in values:
            around = f" ± {values['reward/std']:.4g}" if "reward/std" in values else ""
            parts.append(f"reward {values['reward/mean']:.4g}{around}")
        if "clip/low" in values or "clip/high" in values:
            shown["clip"] = values.get("clip/low", 0.0) + values.get("clip/high", 0.0)
        for name in (name for name in values if name.startswith("held_out/")):
            parts.append(f"held-out {name.removeprefix('held_out/')} {values[name]:.4g}")
        parts += [f"{label} {shown[name]:.4g}" for name, label in PLAIN.items() if name in shown]
        seconds = [value for name, value in values.items() if name.startswith("seconds/")]
        if seconds:
            parts.append(f"{sum(seconds):.3g} s")
        return "  ".join([*parts, f"ETA {format_duration(self.eta_s(step))}"])

    def _open(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        file: Any = self.stream
        self._live = Live(console=Console(file=file), auto_refresh=False)
        self._live.start()
        self._live.console.show_cursor()  # a run that is killed must not leave it hidden
        return self._live

    def _draw(self, step: int, encoding: str) -> Group:
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        bars = BARS if encoding.lower().startswith("utf") else ASCII_BARS
        table = Table(box=SIMPLE_HEAD)
        table.add_column("", overflow="ellipsis", no_wrap=True)
        table.add_column("now", justify="right", no_wrap=True)
        table.add_column(f"mean of {NUM_RECENT}", justify="right", no_wrap=True)
        table.add_column(f"last {SPARK_WIDTH}", no_wrap=True, min_width=SPARK_WIDTH)
        for name, label in order_rows(name for name in self.columns if name not in IN_THE_TITLE):
            column = self.columns[name]
            now = f"{column.recent[-1]:.4g}"
            table.add_row(
                Text(label),
                Text(now, style="" if column.step == step else "dim"),
                f"{column.mean():.4g}",
                Text(sparkline(list(column.recent), bars), style="cyan"),
            )
        return Group(Text(self._title(step), style="bold"), table)

    def _title(self, step: int) -> str:
        share = 100 * step // self.num_steps
        speed = next((self.columns[name] for name in IN_THE_TITLE if name in self.columns), None)
        rate = f"  {speed.recent[-1]:.3g} steps/s" if speed else ""
        left = format_duration(self.eta_s(step))
        return f"step {step} of {self.num_steps}  {share} %{rate}  ETA {left}"


def order_rows(names: Iterable[str]) -> list[tuple[str, str]]:
    """Names in the order of `LABELS`, each with what it is called."""
    rest, rows = list(names), []
    for key, label in LABELS.items():
        found = [name for name in rest if name == key or (key[-1] == "/" and name.startswith(key))]
        if key == "reward/":
            found = [name for name in found if name not in LABELS]
        rows += [(name, label.format(name.removeprefix(key).replace("_", " "))) for name in found]
        rest = [name for name in rest if name not in found]
    return rows + [(name, name) for name in rest]


def sparkline(values: Sequence[float], bars: str = BARS) -> str:
    """A row of bars from the lowest to the highest value; a blank where one is not finite.

    Equal values stand at the lowest bar.
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(
        bars[round((value - low) * scale)] if math.isfinite(value) else " " for value in values
    )
