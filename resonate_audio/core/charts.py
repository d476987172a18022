"""Charts by training step as inline SVG: axes, a reading of every step, no library.

The picture itself is stretched to the space there is; labels are HTML, so that they are as large
on a phone as on a desk.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from resonate_audio.core.page import format_number, tidy_number

Points = tuple[tuple[int, float], ...]
"""(step, value) by rising step."""

WIDTH, HEIGHT = 1000, 300
MOST_POINTS = 200
MOST_DOTS = 40
NUM_COLOURS = 6


@dataclass(frozen=True)
class Line:
    """One quantity by step."""

    name: str
    points: Points
    spread: Points = ()
    """Half the height of a band around the line, at those steps that have one."""
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """Quantities that share a vertical axis."""

    title: str
    lines: tuple[Line, ...]
    unit: str = ""
    """Follows each value that is read out."""
    note: str = ""
    stacked: bool = False
    """Columns on top of each other instead of lines."""
    wide: bool = False
    steps: tuple[int, int] | None = None
    """First and last step of the axis; the data's own if None."""


@dataclass(frozen=True)
class _Frame:
    """Where a step and a value lie in the picture."""

    first: float
    last: float
    low: float
    high: float

    def x(self, step: int | float) -> float:
        return round((step - self.first) / (self.last - self.first) * WIDTH, 1)

    def y(self, value: float) -> float:
        return round((self.high - value) / (self.high - self.low) * HEIGHT, 1)


def render_chart(chart: Chart) -> str:
    """The chart as an HTML figure; nothing if no line has a point."""
    lines = tuple(line for line in chart.lines if line.points)
    if not lines:
        return ""
    chart, thinned = thin(replace(chart, lines=lines))
    smooth = 0 if chart.stacked else _smoothing(chart)
    frame = _frame(chart)
    notes = [
        chart.note,
        f"Faint: each point. Strong: mean of {smooth} neighbours." * (chart.wide and smooth > 1),
        f"Each point is the mean of {thinned} logged steps." * (thinned > 1),
    ]
    note = " ".join(part for part in notes if part)
    kinds = "chart" + " wide" * chart.wide + " stacked" * chart.stacked
    readings = _readings(chart)
    return (
        f'<figure class="{kinds}"><figcaption><h3>{html.escape(chart.title)}</h3>{_keys(chart)}'
        f'</figcaption><div class="plot" data-name="{html.escape(chart.title)}">'
        f"{_y_labels(frame)}{_picture(chart, frame, readings)}{_x_labels(frame)}</div>"
        f'<p class="reading">{html.escape(readings[-1][1].replace(chr(10), " · "))}</p>'
        + (f'<p class="note">{html.escape(note)}</p>' if note else "")
        + "</figure>"
    )


def thin(chart: Chart, most: int = MOST_POINTS) -> tuple[Chart, int]:
    """Replace runs of neighbouring steps by their mean, so that a long run stays a light page.

    All lines are cut at the same steps, and a mean stands at the last step it covers.

    Returns:
        The chart, and how many steps each point covers.
    """
    steps = _steps(chart)
    width = math.ceil(len(steps) / most)
    if width == 1:
        return chart, 1
    group_end = {
        step: steps[min(index - index % width + width, len(steps)) - 1]
        for index, step in enumerate(steps)
    }

    def mean(points: Points) -> Points:
        groups: dict[int, list[float]] = {}
        for step, value in (point for point in points if point[0] in group_end):
            groups.setdefault(group_end[step], []).append(value)
        return tuple((step, math.fsum(values) / len(values)) for step, values in groups.items())

    lines = (replace(x, points=mean(x.points), spread=mean(x.spread)) for x in chart.lines)
    return replace(chart, lines=tuple(lines)), width


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most`` of them: multiples of 1, 2 or 5."""
    wanted = (high - low) / most
    power = 10.0 ** math.floor(math.log10(wanted))
    for factor in (1, 2, 5, 10, 20):
        gap = factor * power
        numbers = range(math.ceil(low / gap - 1e-9), math.floor(high / gap + 1e-9) + 1)
        if len(numbers) <= most:
            break
    return [number * gap for number in numbers]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Ticks with as many decimals as they need to differ, and powers of ten only where tiny."""
    gap = min((b - a for a, b in pairwise(values)), default=0.0)
    largest = max(abs(value) for value in values)
    if largest and (largest < 1e-3 or largest >= 1e6):
        decimals = max(0, _power(largest) - _power(gap or largest))
        texts = [f"{value:.{decimals}e}" if value else "0" for value in values]
    else:
        decimals = max(0, -_power(gap)) if gap else 0
        texts = [f"{value:.{decimals}f}" for value in values]
    return [tidy_number(text) for text in texts]


def _power(value: float) -> int:
    return math.floor(math.log10(value) + 1e-9)


def _steps(chart: Chart) -> list[int]:
    return sorted({step for line in chart.lines for step, _ in line.points})


def _frame(chart: Chart) -> _Frame:
    steps = _steps(chart)
    first, last = (float(step) for step in chart.steps or (steps[0], steps[-1]))
    if first == last:
        first, last = first - 1, last + 1
    if not chart.stacked:
        return _Frame(first, last, *_extent(chart))
    half = (steps[-1] - steps[0]) / max(1, len(steps) - 1) / 2  # so that end columns are whole
    tallest = max(math.fsum(column) for column in _columns(chart)) or 1.0
    return _Frame(first - half, last + half, 0.0, 1.05 * tallest)


def _extent(chart: Chart) -> tuple[float, float]:
    """Lowest and highest value with some air; 0 is the floor of what cannot be below it."""
    values = [value for line in chart.lines for _, value in line.points]
    for line in chart.lines:
        spread = dict(line.spread)
        values += [value - spread.get(step, 0.0) for step, value in line.points]
        values += [value + spread.get(step, 0.0) for step, value in line.points]
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.1 * abs(high) or 0.5
    bottom = low - air
    return (0.0 if low >= 0 > bottom else bottom), high + air


def _columns(chart: Chart) -> list[list[float]]:
    """Height of each line's part of the column, by step."""
    by_step = [dict(line.points) for line in chart.lines]
    return [[max(0.0, part.get(step, 0.0)) for part in by_step] for step in _steps(chart)]


def _picture(chart: Chart, frame: _Frame, readings: list[tuple[int, str]]) -> str:
    edges = _edges(chart, frame)
    shapes = _bars(chart, frame, edges) if chart.stacked else _curves(chart, frame)
    across = "".join(f"M0 {frame.y(tick)}H{WIDTH}" for tick in ticks(frame.low, frame.high))
    label = html.escape(f"{chart.title} by step; last: {readings[-1][1]}".replace("\n", ", "))
    spots = "".join(
        f'<rect class="hit" data-at="{frame.x(step)}" x="{left}" y="0" '
        f'width="{max(0.0, right - left):.1f}" height="{HEIGHT}">'
        f"<title>{html.escape(text)}</title></rect>"
        for (step, text), (left, right) in zip(readings, pairwise(edges), strict=True)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}"><path class="grid" d="{across}"/>{shapes}'
        f'<path class="grid" d="M0 {HEIGHT}H{WIDTH}"/>'
        f'<line class="cursor" x1="0" x2="0" y1="0" y2="{HEIGHT}"/>{spots}</svg>'
    )


def _edges(chart: Chart, frame: _Frame) -> list[float]:
    """Borders between the steps: halfway, and the picture's own at both ends."""
    steps = _steps(chart)
    between = [frame.x((a + b) / 2) for a, b in pairwise(steps)]
    return [0.0, *between, float(WIDTH)]


def _smoothing(chart: Chart) -> int:
    """Points that the mean of neighbours covers: few points stand for themselves."""
    most = max(len(line.points) for line in chart.lines)
    return max(5, most // 20) if most > MOST_DOTS else 1


def _curves(chart: Chart, frame: _Frame) -> str:
    smooth = _smoothing(chart)
    shapes = []
    for number, line in enumerate(chart.lines):
        kind = f"s{number % NUM_COLOURS + 1}{' dashed' * line.dashed}"
        track = _track(line.points, frame)
        shapes.append(_band(line, frame, kind))
        if len(line.points) <= MOST_DOTS:
            shapes.append(f'<path class="line {kind}" d="M{track}"/>')
            dots = track.replace("L", "h0M")
            shapes.append(f'<path class="dots {kind}" d="M{dots}h0"/>')
        else:
            means = _track(mean_around(line.points, smooth), frame)
            shapes.append(f'<path class="line raw {kind}" d="M{track}"/>')
            shapes.append(f'<path class="line {kind}" d="M{means}"/>')
    return "".join(shapes)


def _track(points: Points, frame: _Frame) -> str:
    return "L".join(f"{frame.x(step)} {frame.y(value)}" for step, value in points)


def mean_around(points: Points, width: int) -> Points:
    """Mean of ``width`` neighbours at each step, of fewer at both ends."""
    values = [value for _, value in points]
    before, after = (width - 1) // 2, width // 2
    windows = (values[max(0, i - before) : i + after + 1] for i in range(len(values)))
    means = (math.fsum(window) / len(window) for window in windows)
    return tuple((step, mean) for (step, _), mean in zip(points, means, strict=True))


def _band(line: Line, frame: _Frame, kind: str) -> str:
    spread = dict(line.spread)
    known = [(step, value, spread[step]) for step, value in line.points if step in spread]
    if len(known) < 2:
        return ""
    above = [f"{frame.x(step)} {frame.y(value + half)}" for step, value, half in known]
    below = [f"{frame.x(step)} {frame.y(value - half)}" for step, value, half in known[::-1]]
    return f'<path class="band {kind}" d="M{"L".join(above + below)}Z"/>'


def _bars(chart: Chart, frame: _Frame, edges: list[float]) -> str:
    tracks = [""] * len(chart.lines)
    for column, (left, right) in zip(_columns(chart), pairwise(edges), strict=True):
        below = 0.0
        for number, height in enumerate(column):
            bottom, below = frame.y(below), below + height
            tracks[number] += f"M{left} {bottom}V{frame.y(below)}H{right}V{bottom}Z"
    return "".join(
        f'<path class="bars s{number % NUM_COLOURS + 1}" d="{track}"/>'
        for number, track in enumerate(tracks)
    )


def _readings(chart: Chart) -> list[tuple[int, str]]:
    """What is said at each step: the values of the lines that have one there."""
    tables = [(line.name, dict(line.points), dict(line.spread)) for line in chart.lines]
    readings = []
    for step in _steps(chart):
        parts = [f"step {step}"]
        for name, values, spread in tables:
            if step in values:
                around = f" ± {format_number(spread[step])}" if step in spread else ""
                parts.append(f"{name} {format_number(values[step])}{around}{chart.unit}")
        readings.append((step, "\n".join(parts)))
    return readings


def _keys(chart: Chart) -> str:
    if len(chart.lines) == 1:
        return ""
    items = "".join(
        f'<li class="s{number % NUM_COLOURS + 1}{" dashed" * line.dashed}">'
        f"{html.escape(line.name)}</li>"
        for number, line in enumerate(chart.lines)
    )
    return f'<ul class="keys">{items}</ul>'


def _y_labels(frame: _Frame) -> str:
    values = ticks(frame.low, frame.high)
    spans = "".join(
        f'<span style="top: {frame.y(value) / HEIGHT * 100:.1f}%">{text}</span>'
        for value, text in zip(values, tick_labels(values), strict=True)
    )
    return f'<div class="ys" aria-hidden="true">{spans}</div>'


def _x_labels(frame: _Frame) -> str:
    values = [x for x in ticks(frame.first, frame.last) if math.isclose(x, round(x), abs_tol=1e-9)]
    spans = "".join(
        f'<span style="left: {frame.x(value) / WIDTH * 100:.1f}%">{value:.0f}</span>'
        for value in values
    )
    return f'<div class="xs" aria-hidden="true"><span class="axis">step</span>{spans}</div>'
