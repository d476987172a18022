"""Pictures of a report as inline SVG: judge against judge, and how far each quantity moved."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from resonate_audio.core.charts import HEIGHT, NUM_COLOURS, WIDTH, tick_labels, ticks
from resonate_audio.core.page import format_number
from resonate_audio.evaluation.report.make import Change
from resonate_audio.evaluation.statistics import Estimate

RHO = "\N{GREEK SMALL LETTER RHO}"
AIR = 0.05
"""Share of the span that is left free at each end of an axis."""
LEAST_REACH = 0.2
"""Standard deviations that a panel shows at least, so that noise does not look large."""
ROLES = {"training judge": "s1", "held-out judge": "s2", "sound": "s5"}
"""Colours of the changes."""


@dataclass(frozen=True)
class Cloud:
    """Clips of one system by two metrics."""

    name: str
    x: Float[np.ndarray, " clip"]
    y: Float[np.ndarray, " clip"]


@dataclass(frozen=True)
class Scatter:
    """Judge against judge."""

    x_title: str
    y_title: str
    clouds: tuple[Cloud, ...]


def rank_correlation(x: Float[np.ndarray, " clip"], y: Float[np.ndarray, " clip"]) -> float | None:
    """Spearman's: Pearson's of ranks, ties sharing their mean; None where one does not vary."""
    if len(x) < 2:
        return None
    ranks = [mean_ranks(values) - (len(values) - 1) / 2 for values in (x, y)]
    scale = math.sqrt(float(np.square(ranks[0]).sum()) * float(np.square(ranks[1]).sum()))
    return float((ranks[0] * ranks[1]).sum()) / scale if scale else None


def mean_ranks(values: Float[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    ranks: Float[np.ndarray, " item"] = (last - (counts - 1) / 2)[inverse]
    return ranks


def render_scatter(scatter: Scatter) -> str:
    """The scatter as an HTML figure; nothing if no clip has both values."""
    numbered = [(i, cloud) for i, cloud in enumerate(scatter.clouds) if len(cloud.x)]
    if not numbered:
        return ""
    clouds = [cloud for _, cloud in numbered]
    across = _extent([cloud.x for cloud in clouds])
    up = _extent([cloud.y for cloud in clouds])
    dots = "".join(
        f'<path class="dots {_colour(number)}" d="{_dots(cloud, across, up)}"/>'
        for number, cloud in numbered
    )
    keys = "".join(_key(number, cloud) for number, cloud in numbered)
    title = f"{scatter.y_title} by {scatter.x_title}"
    grid = "".join(f"M0 {_y(tick, up)}H{WIDTH}" for tick in ticks(*up))
    return (
        f'<figure class="chart scatter"><figcaption><h3>{html.escape(title)}</h3>'
        f'<ul class="keys">{keys}</ul></figcaption><div class="field">'
        f"{_labels(ticks(*up), 'ys', lambda v: f'top: {_y(v, up) / HEIGHT * 100:.1f}%')}"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{html.escape(title)}: one dot a clip"><path class="grid" d="{grid}"/>'
        f'{dots}<path class="grid" d="M0 {HEIGHT}H{WIDTH}"/></svg>'
        f"{_labels(ticks(*across), 'xs', lambda v: f'left: {_x(v, across) / WIDTH * 100:.1f}%')}"
        f'</div><p class="note">Across: {html.escape(scatter.x_title)}. Up: '
        f"{html.escape(scatter.y_title)}. {RHO} is Spearman's rank correlation over clips.</p>"
        "</figure>"
    )


def render_move(change: Change, reach: float) -> str:
    """One bar: the change in standard deviations, with its interval, around a line at 0.

    Args:
        change: what moved.
        reach: standard deviations at both ends of the picture.
    """
    size = change.standardized
    if size is None:
        return ""

    def x(value: float) -> float:
        return round(100 + 96 * max(-1.0, min(1.0, value / reach)), 1)

    left, right = sorted((x(0.0), x(size.value)))
    label = html.escape(f"{size.value:+.2f} standard deviations".replace("-", "\N{MINUS SIGN}"))
    return (
        f'<svg class="move {ROLES[change.role]}" viewBox="0 0 200 20" preserveAspectRatio="none" '
        f'role="img" aria-label="{label}"><path class="zero" d="M100 0V20"/>'
        f'<rect x="{left}" y="5" width="{right - left:.1f}" height="10"/>'
        f'<path class="whisker" d="M{x(size.low)} 10H{x(size.high)}'
        f'M{x(size.low)} 6V14M{x(size.high)} 6V14"/></svg>'
    )


def reach_of(changes: Sequence[Change]) -> float:
    """Standard deviations that all bars of a panel fit in."""
    sizes: list[Estimate] = [c.standardized for c in changes if c.standardized is not None]
    ends = (abs(end) for size in sizes for end in (size.low, size.high))
    return max(LEAST_REACH, max(ends, default=0.0))


def _extent(parts: Sequence[Float[np.ndarray, " _"]]) -> tuple[float, float]:
    low = min(float(part.min()) for part in parts)
    high = max(float(part.max()) for part in parts)
    air = AIR * (high - low) or 0.1 * abs(high) or 0.5
    return low - air, high + air


def _x(value: float, extent: tuple[float, float]) -> float:
    return round((value - extent[0]) / (extent[1] - extent[0]) * WIDTH, 1)


def _y(value: float, extent: tuple[float, float]) -> float:
    return round((extent[1] - value) / (extent[1] - extent[0]) * HEIGHT, 1)


def _dots(cloud: Cloud, across: tuple[float, float], up: tuple[float, float]) -> str:
    xs = np.round((cloud.x - across[0]) / (across[1] - across[0]) * WIDTH).astype(int)
    ys = np.round((up[1] - cloud.y) / (up[1] - up[0]) * HEIGHT).astype(int)
    return "".join(
        f"M{x} {y}h0" for x, y in sorted(set(zip(xs.tolist(), ys.tolist(), strict=True)))
    )


def _colour(number: int) -> str:
    return f"s{number % NUM_COLOURS + 1}"


def _key(number: int, cloud: Cloud) -> str:
    rho = rank_correlation(cloud.x, cloud.y)
    told = "" if rho is None else f" {RHO} {format_number(round(rho, 2))}"
    return f'<li class="{_colour(number)}">{html.escape(cloud.name)}{told}</li>'


def _labels(values: Sequence[float], kind: str, place: Callable[[float], str]) -> str:
    spans = "".join(
        f'<span style="{place(value)}">{text}</span>'
        for value, text in zip(values, tick_labels(values), strict=True)
    )
    return f'<div class="{kind}" aria-hidden="true">{spans}</div>'
