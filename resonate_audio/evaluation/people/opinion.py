"""What people said in a listening test: mean opinion scores, agreement, and who was listening.

Ratings are crossed: a rater hears many clips, and a clip is heard by many raters. Neither the
ratings of one rater nor those of one clip are independent, so draws are of raters *and* of prompts.
Such intervals are cautious: the variance that single ratings have on their own counts threefold.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.core.files import atomic_path
from resonate_audio.evaluation.people.correlation import pearson
from resonate_audio.evaluation.people.lines import read_lines, to_number
from resonate_audio.evaluation.statistics import (
    DEFAULT,
    Estimate,
    StatisticsConfig,
    holm,
    interval,
    sign_flip_p,
)

COLUMNS = ("rater", "clip", "system", "prompt", "axis", "score", "ms", "order")
NEEDED = COLUMNS[:6]
TTA_AXES = {
    "复杂度": "complexity",
    "喜爱度": "enjoyment",
    "质量": "quality",
    "一致性": "alignment",
    "实用性": "usefulness",
}
"""Columns of TTA-Bench's rating files, and what they are called here."""
TTA_PROBE = "S000"
"""How TTA-Bench names the system of its probes, which are no part of a mean."""
_TTA_CLIP = re.compile(r"(?P<system>S\d{3})_P(?P<prompt>\d{4})(\.wav)?")


class Rating(FrozenConfig):
    """One score that one person gave."""

    rater: str = Field(min_length=1)
    clip: str = Field(min_length=1)
    system: str = Field(min_length=1)
    prompt: str
    """Id of the prompt: clips of one prompt are alike."""
    axis: str = Field(min_length=1)
    score: float
    ms: float | None = None
    """Time from the start of playing to the answer."""
    order: int | None = None
    """Which in this rater's row it was."""


class Scale(FrozenConfig):
    """Lowest and highest score there is."""

    low: float = 1.0
    high: float = 5.0


def read_ratings(path: Path, scale: Scale | None = None) -> tuple[Rating, ...]:
    """Read ``rater,clip,system,prompt,axis,score[,ms,order]``, as a listening test writes it.

    Raises:
        ManifestError: a column is missing, a score is no number or outside of the scale, or
            somebody rated a clip twice on an axis; names the line.
    """
    placed = [(place, _rating(fields, place)) for place, fields in read_lines(path, NEEDED)]
    return _checked(path, placed, scale)


def read_tta_ratings(path: Path, scale: Scale | None = None) -> tuple[Rating, ...]:
    """Read TTA-Bench's form: ``wav_name, person_id`` and a column for each of five axes.

    The headers are Chinese, see `TTA_AXES`; a clip is called ``S001_P0001.wav``; probes (``S000``)
    are read as the system of that name. Could not be verified, since the ratings themselves are not
    public: the scale, which the published means (3 to 6) suggest to be 1 to 10.

    Raises:
        ManifestError: as `read_ratings`, or a clip has another kind of name.
    """
    placed = []
    for place, fields in read_lines(path, ("wav_name", "person_id", *TTA_AXES)):
        name = str(fields["wav_name"])
        found = _TTA_CLIP.fullmatch(name)
        if found is None:
            raise ManifestError(f"{place}: wav_name {name!r}; expected S001_P0001.wav")
        for column, axis in TTA_AXES.items():
            rating = Rating(
                rater=fields["person_id"],
                clip=name.removesuffix(".wav"),
                system=found["system"],
                prompt=f"prompt_{found['prompt']}",
                axis=axis,
                score=to_number(fields[column], f"{place}, {column}"),
            )
            placed.append((place, rating))
    return _checked(path, placed, scale)


def write_ratings(path: Path, ratings: Sequence[Rating]) -> None:
    """Write the form that `read_ratings` reads."""
    rows = [[_cell(getattr(rating, name)) for name in COLUMNS] for rating in ratings]
    _write_csv(path, COLUMNS, rows)


def write_tta_ratings(path: Path, ratings: Sequence[Rating]) -> None:
    """Write TTA-Bench's form: one line for each rater and clip.

    Raises:
        InputError: a clip lacks an axis, or is not called as TTA-Bench calls clips.
    """
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for rating in ratings:
        if _TTA_CLIP.fullmatch(rating.clip) is None:
            raise InputError(f"clip {rating.clip!r}: TTA-Bench calls clips S001_P0001")
        rows.setdefault((rating.clip, rating.rater), {})[rating.axis] = rating.score
    lines = []
    for (clip, rater), scores in rows.items():
        missing = [axis for axis in TTA_AXES.values() if axis not in scores]
        if missing:
            raise InputError(f"clip {clip}, rater {rater}: no score of {missing[0]}")
        values = [_cell(scores[axis]) for axis in TTA_AXES.values()]
        lines.append([f"{clip.removesuffix('.wav')}.wav", rater, *values])
    _write_csv(path, ("wav_name", "person_id", *TTA_AXES), lines)


def _rating(fields: Mapping[str, Any], place: str) -> Rating:
    numbers = {
        name: to_number(fields[name], f"{place}, {name}")
        for name in ("score", "ms", "order")
        if fields.get(name) not in (None, "")
    }
    empty = [name for name in ("rater", "clip", "system", "axis") if not fields.get(name)]
    if empty or "score" not in numbers:
        raise ManifestError(f"{place}: {(empty or ['score'])[0]} is empty")
    return Rating(
        **{name: str(fields[name]) for name in ("rater", "clip", "system", "prompt", "axis")},
        score=numbers["score"],
        ms=numbers.get("ms"),
        order=int(numbers["order"]) if "order" in numbers else None,
    )


def _checked(
    path: Path, placed: Sequence[tuple[str, Rating]], scale: Scale | None
) -> tuple[Rating, ...]:
    if not placed:
        raise ManifestError(f"{path}: holds no rating")
    seen: dict[tuple[str, str, str], str] = {}
    for place, rating in placed:
        if scale is not None and not scale.low <= rating.score <= scale.high:
            raise ManifestError(
                f"{place}: score {rating.score:g} is outside of {scale.low:g} to {scale.high:g}"
            )
        key = (rating.rater, rating.clip, rating.axis)
        if key in seen:
            raise ManifestError(
                f"{place}: {rating.rater} rated {rating.clip} on {rating.axis} in {seen[key]}, too"
            )
        seen[key] = place
    return tuple(rating for _, rating in placed)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(buffer.getvalue(), encoding="utf-8")


class OpinionScore(Estimate):
    """Mean opinion score of a system on an axis; the interval is of drawn raters and prompts."""

    system: str
    axis: str
    deviation: float
    """Standard deviation of single ratings: not how sure the mean is."""
    num_raters: int
    num_clips: int
    num_ratings: int


class OpinionDifference(Estimate):
    """Second system minus first, on the prompts that both have."""

    axis: str
    first: str
    second: str
    p: float
    """Two-sided, by sign flips over prompts."""
    p_holm: float = math.nan
    """Corrected for all pairs of systems on this axis."""
    num_prompts: int


@dataclass(frozen=True)
class _Crossed:
    """Sums and numbers of ratings by rater and prompt, of one system."""

    sums: Float[np.ndarray, "rater prompt"]
    counts: Float[np.ndarray, "rater prompt"]

    def draws(
        self, raters: Float[np.ndarray, "draw rater"], prompts: Float[np.ndarray, "draw prompt"]
    ) -> Float[np.ndarray, " draw"]:
        """Mean in each draw."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean: Float[np.ndarray, " draw"] = ((raters @ self.sums) * prompts).sum(axis=1) / (
                (raters @ self.counts) * prompts
            ).sum(axis=1)
        return mean


def opinion_scores(
    ratings: Sequence[Rating], axis: str, config: StatisticsConfig = DEFAULT
) -> tuple[OpinionScore, ...]:
    """Mean of every system on an axis, best first.

    Raises:
        InputError: nobody rated the axis.
    """
    chosen = _of_axis(ratings, axis)
    tables, raters, prompts = _cross(chosen)
    rater_draws, prompt_draws = _draws(len(raters), len(prompts), config)
    found = []
    for system, table in tables.items():
        own = [rating for rating in chosen if rating.system == system]
        scores = np.array([rating.score for rating in own])
        mean = interval(float(scores.mean()), table.draws(rater_draws, prompt_draws), config)
        found.append(
            OpinionScore(
                **mean.model_dump(),
                system=system,
                axis=axis,
                deviation=float(scores.std(ddof=1)) if len(scores) > 1 else 0.0,
                num_raters=len({rating.rater for rating in own}),
                num_clips=len({rating.clip for rating in own}),
                num_ratings=len(own),
            )
        )
    return tuple(sorted(found, key=lambda score: (-score.value, score.system)))


def opinion_differences(
    ratings: Sequence[Rating], axis: str, config: StatisticsConfig = DEFAULT
) -> tuple[OpinionDifference, ...]:
    """Every pair of systems on the prompts that both have, with Holm's correction over pairs.

    Raises:
        InputError: nobody rated the axis.
    """
    chosen = _of_axis(ratings, axis)
    tables, raters, prompts = _cross(chosen)
    rater_draws, prompt_draws = _draws(len(raters), len(prompts), config)
    found = []
    for first, second in combinations(sorted(tables), 2):
        one, two = tables[first], tables[second]
        shared = (one.counts.sum(axis=0) > 0) & (two.counts.sum(axis=0) > 0)
        if not shared.any():
            continue
        changes = _prompt_means(two, shared) - _prompt_means(one, shared)
        weights = prompt_draws * shared
        draws = two.draws(rater_draws, weights) - one.draws(rater_draws, weights)
        estimate = interval(float(changes.mean()), draws, config)
        found.append(
            OpinionDifference(
                **estimate.model_dump(),
                axis=axis,
                first=first,
                second=second,
                p=sign_flip_p(changes, config),
                num_prompts=int(shared.sum()),
            )
        )
    corrected = holm([difference.p for difference in found]) if found else []
    return tuple(
        difference.model_copy(update={"p_holm": p})
        for difference, p in zip(found, corrected, strict=True)
    )


def _of_axis(ratings: Sequence[Rating], axis: str) -> list[Rating]:
    chosen = [rating for rating in ratings if rating.axis == axis and rating.system != TTA_PROBE]
    if not chosen:
        known = ", ".join(sorted({rating.axis for rating in ratings})) or "none"
        raise InputError(f"no rating of {axis}; there are ratings of {known}")
    return chosen


def _cross(ratings: Sequence[Rating]) -> tuple[dict[str, _Crossed], list[str], list[str]]:
    raters = sorted({rating.rater for rating in ratings})
    prompts = sorted({rating.prompt for rating in ratings})
    row, column = ({name: n for n, name in enumerate(names)} for names in (raters, prompts))
    tables = {}
    for system in sorted({rating.system for rating in ratings}):
        sums, counts = np.zeros((2, len(raters), len(prompts)))
        for rating in ratings:
            if rating.system == system:
                sums[row[rating.rater], column[rating.prompt]] += rating.score
                counts[row[rating.rater], column[rating.prompt]] += 1
        tables[system] = _Crossed(sums, counts)
    return tables, raters, prompts


def _prompt_means(
    table: _Crossed, shared: Bool[np.ndarray, " prompt"]
) -> Float[np.ndarray, " shared_prompt"]:
    means: Float[np.ndarray, " shared_prompt"] = (
        table.sums.sum(axis=0)[shared] / table.counts.sum(axis=0)[shared]
    )
    return means


def _draws(
    num_raters: int, num_prompts: int, config: StatisticsConfig
) -> tuple[Float[np.ndarray, "draw rater"], Float[np.ndarray, "draw prompt"]]:
    rng = np.random.default_rng(config.seed)
    return tuple(  # type: ignore[return-value]
        rng.multinomial(size, np.full(size, 1 / size), config.num_resamples).astype(float)
        for size in (num_raters, num_prompts)
    )


def rating_matrix(ratings: Sequence[Rating], axis: str) -> Float[np.ndarray, "clip rater"]:
    """Scores of every clip by every rater; NaN where there is none."""
    chosen = _of_axis(ratings, axis)
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
    raters = sorted({rating.rater for rating in _of_axis(ratings, axis)})
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
