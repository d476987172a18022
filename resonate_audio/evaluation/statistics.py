"""How sure a number is: bootstrap over prompts, paired sign flips, Holm, Wilson.

The unit is the prompt, since takes of one prompt are alike; takes are a second level under it.
Everything random is drawn with a seed, and from sorted ids, so a result does not depend on the
order of lines in a file.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from jaxtyping import Float
from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.evaluation.scores.scored import ClipScore, SystemScores

EXACT_UP_TO = 12
"""Differences of which all 2^n sign patterns are tried."""
CHUNK = 1000
"""Sign patterns drawn at once: bounds the memory."""


class StatisticsConfig(FrozenConfig):
    """How much is drawn, and from which seed."""

    num_resamples: int = Field(2000, ge=100)
    """Bootstrap draws of an interval."""
    num_flips: int = Field(10_000, ge=100)
    """Drawn sign patterns of a test, where there are too many to try all."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Share of an interval."""
    seed: int = Field(0, ge=0)


DEFAULT = StatisticsConfig()


class Estimate(FrozenConfig):
    """A number with its interval."""

    value: float
    low: float
    high: float


class MetricMean(Estimate):
    """Mean of a metric over prompts."""

    metric: str
    num_prompts: int
    num_clips: int
    """That stand in the mean, failed ones with a worst value among them."""
    failed: tuple[str, ...] = ()
    """Clips that failed and count with the metric's worst value."""
    left_out: tuple[str, ...] = ()
    """Clips without a value, which the mean does not hold: failed without a worst, or unscored."""


class PairedDifference(Estimate):
    """Second system minus first, on the same prompts and seeds."""

    metric: str
    p: float
    """Two-sided, by sign flips over prompts."""
    num_prompts: int
    num_clips: int
    failed: tuple[str, ...] = ()
    """Pairs of which a clip failed and counts with the worst value."""
    left_out: tuple[str, ...] = ()
    """Pairs of which a clip has no value."""


@dataclass(frozen=True)
class PromptTakes:
    """Values of one metric, prompt after prompt."""

    ids: tuple[str, ...]
    """Sorted."""
    takes: tuple[int, ...]
    """Number of values of each prompt."""
    values: Float[np.ndarray, " clip"]
    failed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def prompt_means(self) -> Float[np.ndarray, " prompt"]:
        """Mean over the takes of each prompt."""
        sums = np.add.reduceat(self.values, _starts(self.takes))
        means: Float[np.ndarray, " prompt"] = sums / np.asarray(self.takes, float)
        return means


def metric_mean(
    scores: SystemScores,
    metric: str,
    config: StatisticsConfig = DEFAULT,
    ids: Collection[str] | None = None,
) -> MetricMean:
    """Mean of a metric over prompts, each of which counts once, with a two-level bootstrap.

    Args:
        scores: one system.
        metric: name of a card.
        config: draws and seed.
        ids: only these prompts; None: all.

    Raises:
        ManifestError: the metric is unknown, or no clip has a value.
    """
    takes = collect_takes(scores, metric, ids)
    estimate = bootstrap_mean(takes.values, takes.takes, config)
    return MetricMean(
        **estimate.model_dump(),
        metric=metric,
        num_prompts=len(takes.ids),
        num_clips=len(takes.values),
        failed=takes.failed,
        left_out=takes.left_out,
    )


def collect_takes(
    scores: SystemScores, metric: str, ids: Collection[str] | None = None
) -> PromptTakes:
    """Sort the values of a metric by prompt and seed, and tell which clips failed or have none.

    Raises:
        ManifestError: the metric is unknown, or no clip has a value.
    """
    chosen = [
        (clip, value)
        for clip, value in zip(scores.clips, scores.values(metric), strict=True)
        if ids is None or clip.id in ids
    ]
    chosen.sort(key=lambda pair: (pair[0].id, pair[0].seed))
    valued = [(clip, value) for clip, value in chosen if value is not None]
    if not valued:
        raise ManifestError(
            f"{scores.system}: none of {len(chosen)} clips has a value for {metric}; score it first"
        )
    counts: dict[str, int] = {}
    for clip, _ in valued:
        counts[clip.id] = counts.get(clip.id, 0) + 1
    return PromptTakes(
        ids=tuple(counts),
        takes=tuple(counts.values()),
        values=np.array([value for _, value in valued], float),
        failed=tuple(clip_name(clip) for clip, _ in valued if clip.failure),
        left_out=tuple(clip_name(clip) for clip, value in chosen if value is None),
    )


def clip_name(clip: ClipScore) -> str:
    """How a list names a clip, and why it failed."""
    why = f" ({clip.failure})" if clip.failure else ""
    return f"{clip.id}, seed {clip.seed}{why}"


def bootstrap_mean(
    values: Float[np.ndarray, " clip"],
    takes: Sequence[int],
    config: StatisticsConfig = DEFAULT,
) -> Estimate:
    """Mean over prompts of the mean over their takes, with a percentile interval.

    Args:
        values: prompt after prompt.
        takes: number of values of each prompt.
        config: draws and seed.
    """
    sizes = np.repeat(np.asarray(takes, float), takes)
    mean = float((values / sizes).sum() / len(takes))
    return interval(mean, bootstrap_weights(tuple(takes), config) @ values, config)


@lru_cache(maxsize=4)
def bootstrap_weights(
    takes: tuple[int, ...], config: StatisticsConfig
) -> Float[np.ndarray, "resample clip"]:
    """Weight of every clip in every draw: prompts with replacement, then takes within each.

    A row sums to 1, so ``weights @ values`` are the draws of a mean. Kept for the last few
    layouts: all metrics of a set share one matrix, and so are drawn alike.

    Args:
        takes: number of takes of each prompt.
        config: draws and seed.
    """
    rng = np.random.default_rng(config.seed)
    num_prompts, num_clips = len(takes), sum(takes)
    counts, starts = np.asarray(takes), _starts(takes)
    drawn = rng.integers(0, num_prompts, (config.num_resamples, num_prompts))
    sizes = counts[drawn]
    rows = np.arange(config.num_resamples)[:, None] * num_clips
    weights = np.zeros(config.num_resamples * num_clips)
    for position in range(int(counts.max())):
        there = sizes > position
        take = (rng.random(drawn.shape) * sizes).astype(int) if counts.max() > 1 else 0
        cells = (rows + starts[drawn] + take)[there]
        weights += np.bincount(cells, 1 / (num_prompts * sizes[there]), minlength=len(weights))
    table = weights.reshape(config.num_resamples, num_clips)
    table.flags.writeable = False
    return table


def paired_difference(
    first: SystemScores,
    second: SystemScores,
    metric: str,
    config: StatisticsConfig = DEFAULT,
) -> PairedDifference:
    """Second minus first on the same prompts and seeds, tested by sign flips over prompts.

    Raises:
        ManifestError: one of them lacks a clip that the other has, or no pair has two values.
    """
    pairs = _pair_clips(first, second, metric)
    valued = [pair for pair in pairs if pair.change is not None]
    if not valued:
        raise ManifestError(
            f"{first.system}, {second.system}: no pair of clips has two values for {metric}"
        )
    counts: dict[str, int] = {}
    for pair in valued:
        counts[pair.clip.id] = counts.get(pair.clip.id, 0) + 1
    changes = np.array([pair.change for pair in valued], float)
    takes = PromptTakes(tuple(counts), tuple(counts.values()), changes)
    return PairedDifference(
        **bootstrap_mean(changes, takes.takes, config).model_dump(),
        metric=metric,
        p=sign_flip_p(takes.prompt_means(), config),
        num_prompts=len(counts),
        num_clips=len(valued),
        failed=tuple(clip_name(pair.clip) for pair in valued if pair.clip.failure),
        left_out=tuple(clip_name(pair.clip) for pair in pairs if pair.change is None),
    )


@dataclass(frozen=True)
class _ClipPair:
    """One prompt and seed in two systems."""

    clip: ClipScore
    """The one that failed, if one did."""
    change: float | None


def _pair_clips(first: SystemScores, second: SystemScores, metric: str) -> list[_ClipPair]:
    ours, theirs = _by_take(first, metric), _by_take(second, metric)
    _check_covers(second.system, theirs, first.system, ours)
    _check_covers(first.system, ours, second.system, theirs)
    pairs = []
    for key in sorted(ours):
        (clip, before), (other, after) = ours[key], theirs[key]
        change = None if before is None or after is None else after - before
        pairs.append(_ClipPair(clip if clip.failure else other, change))
    return pairs


_Takes = dict[tuple[str, int], tuple[ClipScore, float | None]]


def _by_take(scores: SystemScores, metric: str) -> _Takes:
    valued = zip(scores.clips, scores.values(metric), strict=True)
    return {(clip.id, clip.seed): (clip, value) for clip, value in valued}


def _check_covers(system: str, takes: _Takes, other: str, wanted: _Takes) -> None:
    missing = sorted(wanted.keys() - takes.keys())
    if missing:
        prompt_id, seed = missing[0]
        raise ManifestError(
            f"{system}: has no clip of prompt {prompt_id}, seed {seed}, which {other} has "
            f"({len(missing)} such); score both on the same prompts and seeds"
        )


def sign_flip_p(
    differences: Float[np.ndarray, " unit"], config: StatisticsConfig = DEFAULT
) -> float:
    """Two-sided p of a mean difference of 0: how often random signs give one as large.

    All 2^n patterns up to n = 12; above, drawn ones with the observed pattern among them:
    p = (hits + 1) / (draws + 1).

    Args:
        differences: one of each independent unit, such as a prompt.
        config: number of draws and seed.
    """
    total = float(differences.sum())
    bound = abs(total) * (1 - 1e-9)
    if len(differences) <= EXACT_UP_TO:
        patterns = np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences)) & 1
        return float(np.mean(np.abs(2 * (patterns @ differences) - total) >= bound))
    rng, hits = np.random.default_rng(config.seed), 0
    for start in range(0, config.num_flips, CHUNK):
        size = (min(CHUNK, config.num_flips - start), len(differences))
        signs = rng.integers(0, 2, size, dtype=np.int8).astype(float)
        hits += int((np.abs(2 * (signs @ differences) - total) >= bound).sum())
    return (hits + 1) / (config.num_flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number: the i-th smallest of m times m - i + 1, made monotone.

    [Holm 1979, "A simple sequentially rejective multiple test procedure"]
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return [float(p) for p in corrected]


def ratio_of_means(
    numerator: Float[np.ndarray, " prompt"],
    denominator: Float[np.ndarray, " prompt"],
    config: StatisticsConfig = DEFAULT,
) -> Estimate:
    """Mean over prompts of one column by that of another, prompts drawn together.

    Raises:
        InputError: the mean of the denominator is not positive, where a ratio says nothing.
    """
    if denominator.mean() <= 0:
        raise InputError(
            f"a ratio needs a positive mean below the line, got {denominator.mean():.4g}"
        )
    weights = bootstrap_weights((1,) * len(numerator), config)
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (weights @ numerator) / (weights @ denominator)
    return interval(float(numerator.mean() / denominator.mean()), draws, config)


def wilson_interval(hits: float, total: int, confidence: float = 0.95) -> Estimate:
    """A share of independent trials with Wilson's score interval.

    Raises:
        InputError: no trial, or more hits than trials.
    """
    if not 0 <= hits <= total or total == 0:
        raise InputError(f"a share needs 0 to n hits of n > 0 trials, got {hits:g} of {total}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / total
    centre = share + z * z / (2 * total)
    half = z * float(np.sqrt(share * (1 - share) / total + z * z / (4 * total * total)))
    scale = 1 + z * z / total
    low = 0.0 if hits == 0 else (centre - half) / scale
    high = 1.0 if hits == total else (centre + half) / scale
    return Estimate(value=share, low=low, high=high)


def interval(
    value: float, draws: Float[np.ndarray, " resample"], config: StatisticsConfig = DEFAULT
) -> Estimate:
    """Percentile interval of bootstrap draws; draws in which the number is undefined drop out.

    Raises:
        InputError: it is undefined in every draw.
    """
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        raise InputError("no bootstrap draw gives a number: the values do not vary")
    tail = (1 - config.confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Estimate(value=value, low=float(low), high=float(high))


def _starts(takes: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Index of the first clip of each prompt."""
    return np.cumsum([0, *takes[:-1]])
