"""Whether raters agree, and who was listening."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import InputError
from resonate_audio.evaluation.people.correlation import pearson
from resonate_audio.evaluation.people.ratings import Rating, of_axis


def rating_matrix(ratings: Sequence[Rating], axis: str) -> Float[np.ndarray, "clip rater"]:
    """Scores of every clip by every rater; NaN where there is none."""
    chosen = of_axis(ratings, axis)
    clips = sorted({(rating.system, rating.clip) for rating in chosen})
    raters = sorted({rating.rater for rating in chosen})
    row, column = ({name: n for n, name in enumerate(names)} for names in (clips, raters))
    table = np.full((len(clips), len(raters)), np.nan)
    for rating in chosen:
        table[row[rating.system, rating.clip], column[rating.rater]] = rating.score
    return table


def krippendorff_alpha(
    table: Float[np.ndarray, "clip rater"], level: Literal["interval", "ordinal"] = "ordinal"
) -> float:
    """Agreement: 1 - observed / expected disagreement; 0 is chance, 1 is perfect.

    With o_ck the coincidences of values c and k in clips of two ratings or more (each ordered pair
    of a clip of m ratings counts 1 / (m - 1)), n_c = Σ_k o_ck and n = Σ_c n_c:

        α = 1 - (n - 1) Σ o_ck δ²_ck / Σ n_c n_k δ²_ck

    δ²_ck = (c - k)² for intervals, and (Σ_{g=c..k} n_g - (n_c + n_k) / 2)² for ranks.
    [Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"]

    Raises:
        InputError: no clip has two ratings, or all ratings are equal.
    """
    values, codes = np.unique(table[np.isfinite(table)], return_inverse=True)
    number = np.full(table.shape, -1)
    number[np.isfinite(table)] = codes
    together = np.zeros((len(values), len(values)))
    for line in number:
        counts = np.bincount(line[line >= 0], minlength=len(values)).astype(float)
        if counts.sum() > 1:
            together += (np.outer(counts, counts) - np.diag(counts)) / (counts.sum() - 1)
    totals = together.sum(axis=1)
    if totals.sum() == 0 or (totals > 0).sum() < 2:
        raise InputError("agreement needs clips of two ratings or more, and scores that differ")
    if level == "interval":
        apart = np.square(values[:, None] - values[None])
    else:
        middles = totals.cumsum() - totals / 2
        apart = np.square(middles[:, None] - middles[None])
    observed = float((together * apart).sum())
    expected = float((np.outer(totals, totals) * apart).sum() / (totals.sum() - 1))
    return 1 - observed / expected


class IntraclassCorrelation(FrozenConfig):
    """ICC of a two-way random model, absolute agreement."""

    single: float
    """ICC(2,1): of one rater."""
    average: float
    """ICC(2,k): of the mean of all k."""
    num_clips: int
    num_raters: int


def intraclass_correlation(table: Float[np.ndarray, "clip rater"]) -> IntraclassCorrelation:
    """ICC(2,1) and ICC(2,k) over the clips that every rater rated.

    With mean squares of clips R, raters C and the rest E, n clips and k raters:
    ICC(2,1) = (R - E) / (R + (k - 1) E + k (C - E) / n),
    ICC(2,k) = (R - E) / (R + (C - E) / n).                       [Shrout & Fleiss 1979]

    Raises:
        InputError: fewer than two clips have a score of every rater, or there is one rater; or
            all scores are equal.
    """
    whole = table[np.isfinite(table).all(axis=1)]
    n, k = whole.shape
    if n < 2 or k < 2:
        raise InputError(
            f"ICC needs two raters and two clips that all of them rated, got {k} and {n}"
        )
    grand = whole.mean()
    rows, columns = whole.mean(axis=1), whole.mean(axis=0)
    clips = k * np.square(rows - grand).sum() / (n - 1)
    raters = n * np.square(columns - grand).sum() / (k - 1)
    rest = np.square(whole - rows[:, None] - columns[None] + grand).sum() / ((n - 1) * (k - 1))
    if clips + rest == 0:
        raise InputError("ICC needs clips or raters whose scores differ")
    single = (clips - rest) / (clips + (k - 1) * rest + k * (raters - rest) / n)
    average = (clips - rest) / (clips + (raters - rest) / n)
    return IntraclassCorrelation(
        single=float(single), average=float(average), num_clips=n, num_raters=k
    )


class ScreeningRules(FrozenConfig):
    """When a rater's answers are doubted."""

    least_correlation: float = 0.0
    """With the mean of the others; under it is worse than guessing."""
    least_ms: float = 1000.0
    """Median time of an answer."""
    least_ratings: int = 3
    """Under this nothing is said of a rater."""
    probes: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Lowest and highest believable score of clips whose quality is known, by clip."""


class RaterCheck(FrozenConfig):
    """One rater on one axis."""

    rater: str
    axis: str
    num_ratings: int
    correlation: float | None
    """With the mean of all other raters on the same clips; None: undefined."""
    median_ms: float | None
    doubts: tuple[str, ...]
    """Why the answers are doubted; empty: they are not."""


def screen_raters(
    ratings: Sequence[Rating], axis: str, rules: ScreeningRules | None = None
) -> tuple[RaterCheck, ...]:
    """Check every rater against the others. Nobody is left out here: that is the reader's choice.

    Raises:
        InputError: nobody rated the axis.
    """
    rules = rules or ScreeningRules()
    table = rating_matrix(ratings, axis)
    raters = sorted({rating.rater for rating in of_axis(ratings, axis)})
    return tuple(
        _check_rater(rater, table, column, axis, ratings, rules)
        for column, rater in enumerate(raters)
    )


def _check_rater(
    rater: str,
    table: Float[np.ndarray, "clip rater"],
    column: int,
    axis: str,
    ratings: Sequence[Rating],
    rules: ScreeningRules,
) -> RaterCheck:
    own = [rating for rating in ratings if rating.rater == rater and rating.axis == axis]
    times = [rating.ms for rating in own if rating.ms is not None]
    median_ms = float(np.median(times)) if times else None
    correlation = _with_the_rest(table, column)
    scores = {rating.score for rating in own}
    doubts = []
    if len(own) >= rules.least_ratings:
        if len(scores) == 1:
            doubts.append(f"gave {own[0].score:g} to everything")
        if correlation is not None and correlation < rules.least_correlation:
            doubts.append(f"correlates with the others by {correlation:.2f}")
        if median_ms is not None and median_ms < rules.least_ms:
            doubts.append(f"answers after {median_ms:.0f} ms")
    for rating in own:
        low, high = rules.probes.get(rating.clip, (-math.inf, math.inf))
        if not low <= rating.score <= high:
            doubts.append(f"gave {rating.score:g} to the probe {rating.clip}")
    return RaterCheck(
        rater=rater,
        axis=axis,
        num_ratings=len(own),
        correlation=correlation,
        median_ms=median_ms,
        doubts=tuple(doubts),
    )


def _with_the_rest(table: Float[np.ndarray, "clip rater"], column: int) -> float | None:
    rest = np.delete(table, column, axis=1)
    there = np.isfinite(table[:, column]) & np.isfinite(rest).any(axis=1)
    if there.sum() < 2:
        return None
    value = pearson(table[there, column], np.nanmean(rest[there], axis=1))
    return value if math.isfinite(value) else None
