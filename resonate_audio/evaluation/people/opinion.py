"""What people said in a listening test: mean opinion scores and their differences.

Ratings are crossed: a rater hears many clips, and a clip is heard by many raters. Neither the
ratings of one rater nor those of one clip are independent, so draws are of raters *and* of prompts.
Such intervals are cautious: the variance that single ratings have on their own counts threefold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from resonate_audio.evaluation.people.ratings import Rating, of_axis
from resonate_audio.evaluation.statistics import (
    DEFAULT,
    Estimate,
    StatisticsConfig,
    holm,
    interval,
    sign_flip_p,
)


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

    def prompt_means(
        self, raters: Float[np.ndarray, "draw rater"]
    ) -> Float[np.ndarray, "draw prompt"]:
        """Mean of every prompt in each draw; NaN where nobody who was drawn rated it."""
        with np.errstate(invalid="ignore"):
            means: Float[np.ndarray, "draw prompt"] = (raters @ self.sums) / (raters @ self.counts)
        return means


def opinion_scores(
    ratings: Sequence[Rating], axis: str, config: StatisticsConfig = DEFAULT
) -> tuple[OpinionScore, ...]:
    """Mean of every system on an axis, best first.

    Raises:
        InputError: nobody rated the axis.
    """
    chosen = of_axis(ratings, axis)
    tables, rater_draws, prompt_draws = _cross(chosen, config)
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

    A difference is the mean over prompts of the differences of their means, so that every prompt
    counts the same, however many rated it.

    Raises:
        InputError: nobody rated the axis.
    """
    chosen = of_axis(ratings, axis)
    tables, rater_draws, prompt_draws = _cross(chosen, config)
    everybody = np.ones((1, rater_draws.shape[1]))
    found = []
    for first, second in combinations(sorted(tables), 2):
        one, two = tables[first], tables[second]
        (change,) = two.prompt_means(everybody) - one.prompt_means(everybody)
        changes = change[np.isfinite(change)]
        if not len(changes):
            continue
        drawn = two.prompt_means(rater_draws) - one.prompt_means(rater_draws)
        weights = prompt_draws * np.isfinite(drawn)
        with np.errstate(invalid="ignore"):
            draws = (weights * np.nan_to_num(drawn)).sum(axis=1) / weights.sum(axis=1)
        estimate = interval(float(changes.mean()), draws, config)
        found.append(
            OpinionDifference(
                **estimate.model_dump(),
                axis=axis,
                first=first,
                second=second,
                p=sign_flip_p(changes, config),
                num_prompts=len(changes),
            )
        )
    corrected = holm([difference.p for difference in found]) if found else []
    return tuple(
        difference.model_copy(update={"p_holm": p})
        for difference, p in zip(found, corrected, strict=True)
    )


def _cross(
    ratings: Sequence[Rating], config: StatisticsConfig
) -> tuple[dict[str, _Crossed], Float[np.ndarray, "draw rater"], Float[np.ndarray, "draw prompt"]]:
    """Tables by system, and how often raters and prompts occur in each draw."""
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
    return tables, *_draws(len(raters), len(prompts), config)


def _draws(
    num_raters: int, num_prompts: int, config: StatisticsConfig
) -> tuple[Float[np.ndarray, "draw rater"], Float[np.ndarray, "draw prompt"]]:
    rng = np.random.default_rng(config.seed)
    return tuple(  # type: ignore[return-value]
        rng.multinomial(size, np.full(size, 1 / size), config.num_resamples).astype(float)
        for size in (num_raters, num_prompts)
    )
