"""TTA-Bench's dimensions, from the scores of a system.

Formulas are in docs/tta-bench.md, with what of them could not be verified.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import fsum

import numpy as np
from jaxtyping import Float

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.evaluation.scores.scored import SystemScores
from resonate_audio.evaluation.statistics import (
    DEFAULT,
    Estimate,
    MetricMean,
    PromptTakes,
    StatisticsConfig,
    bootstrap_weights,
    clip_name,
    collect_takes,
    interval,
    metric_mean,
    wilson_interval,
)
from resonate_audio.evaluation.tta_bench.prompts import TTABenchSet, TTAItem

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gender": ("male", "female"),
    "age": ("old", "middle", "youth", "child"),
    "language": ("en", "zh", "other"),
}
"""Groups of the fairness prompts by the attribute that tells them apart."""


def unscored(scores: SystemScores, bench: TTABenchSet) -> tuple[str, ...]:
    """Ids of the prompts that a system was not scored on.

    Raises:
        ManifestError: a clip was made for a prompt that is not in this file, or is another there.
    """
    prompts = {item.id: item.prompt for item in bench.items}
    for clip in scores.clips:
        if clip.id not in prompts:
            raise ManifestError(
                f"{scores.system}: {bench.name} has no prompt {clip.id}; give the file that its "
                "clips were made from"
            )
        if clip.prompt != prompts[clip.id]:
            raise ManifestError(
                f"{scores.system}: {clip.id} is {clip.prompt!r}, but {prompts[clip.id]!r} in "
                f"{bench.name}; give the file that its clips were made from"
            )
    there = {clip.id for clip in scores.clips}
    return tuple(item.id for item in bench.items if item.id not in there)


class Cell(FrozenConfig):
    """Mean of a metric over some prompts."""

    group: str
    mean: MetricMean


class Grid(FrozenConfig):
    """Accuracy or generalisation: means by number of events and how they go together."""

    overall: MetricMean
    by_count: tuple[Cell, ...]
    by_relation: tuple[Cell, ...]
    by_count_and_relation: tuple[Cell, ...]
    empty: tuple[str, ...] = ()
    """Groups in which no clip has a value; their clips are in ``overall.left_out``."""


def attribute_grid(
    scores: SystemScores, bench: TTABenchSet, metric: str, config: StatisticsConfig = DEFAULT
) -> Grid:
    """Means of a metric by event count, by relation, and by both.

    Raises:
        ManifestError: the metric is unknown, or no clip has a value.
    """
    valued = set(collect_takes(scores, metric).ids)
    empty: list[str] = []

    def cells(name: Callable[[TTAItem], str | None]) -> tuple[Cell, ...]:
        groups: dict[str, set[str]] = {}
        for item in _scored_items(scores, bench):
            label = name(item)
            if label is not None:
                groups.setdefault(label, set()).add(item.id)
        empty.extend(label for label, ids in sorted(groups.items()) if not ids & valued)
        return tuple(
            Cell(group=label, mean=metric_mean(scores, metric, config, ids))
            for label, ids in sorted(groups.items())
            if ids & valued
        )

    by_count = cells(_count)
    by_relation = cells(lambda item: item.event_relation or _single(item))
    return Grid(
        overall=metric_mean(scores, metric, config),
        by_count=by_count,
        by_relation=by_relation,
        by_count_and_relation=cells(
            lambda item: (
                f"{_count(item)} {item.event_relation or _single(item)}"
                if item.event_count and (item.event_relation or item.event_count == 1)
                else None
            )
        ),
        empty=tuple(empty),
    )


def _count(item: TTAItem) -> str | None:
    return None if item.event_count is None else str(item.event_count)


def _single(item: TTAItem) -> str | None:
    return "single" if item.event_count == 1 else None


def _scored_items(scores: SystemScores, bench: TTABenchSet) -> list[TTAItem]:
    there = {clip.id for clip in scores.clips}
    return [item for item in bench.items if item.id in there]


class Robustness(FrozenConfig):
    """RS_p = mean over prompts perturbed by p / mean over the same prompts unperturbed."""

    by_perturbation: dict[str, Estimate]
    mean: Estimate
    """Over the kinds of perturbation that are there."""
    num_prompts: int
    """Unperturbed prompts that stand below the line."""
    failed: tuple[str, ...] = ()
    """Clips, with and without perturbation, that count with the metric's worst value."""
    left_out: tuple[str, ...] = ()
    """Clips, with and without perturbation, that have no value."""


def robustness(
    perturbed: SystemScores,
    clean: SystemScores,
    bench: TTABenchSet,
    metric: str,
    config: StatisticsConfig = DEFAULT,
) -> Robustness:
    """Ratio of quality with and without each perturbation, on the same source prompts.

    Intervals draw source prompts, all kinds of perturbation of one together.

    Differs from the published script, which divides by the mean of the *perturbed* clips.

    Args:
        perturbed: scores of the robustness prompts.
        clean: scores of the accuracy prompts that they were made of.
        bench: the robustness file.
        metric: a column whose mean is positive, as ratios need.
        config: draws and seed.

    Raises:
        ManifestError: a source prompt was not scored, or the metric was measured in two ways.
        InputError: the clean mean is not positive.
    """
    _check_measured_alike(perturbed, clean, metric)
    takes = collect_takes(perturbed, metric)
    above = _means_by_id(takes)
    items = [item for item in bench.items if item.id in above]
    kinds = sorted({item.perturbation or "none said" for item in items})
    bases = sorted({str(item.base_id) for item in items})
    clean_values = _clean_values(clean, perturbed.system, metric, bases)
    weights = bootstrap_weights((1,) * len(bases), config)
    ratios, draws, values = {}, [], []
    for kind in kinds:
        own = [item for item in items if (item.perturbation or "none said") == kind]
        rows = np.array([bases.index(str(item.base_id)) for item in own])
        numerator = np.array([above[item.id] for item in own])
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = (weights[:, rows] @ numerator) / (weights[:, rows] @ clean_values[rows])
        value = float(numerator.mean() / clean_values[rows].mean())
        ratios[kind] = interval(value, drawn, config)
        draws.append(drawn)
        values.append(value)
    mean = interval(float(np.mean(values)), np.mean(draws, axis=0), config)
    sources = collect_takes(clean, metric, bases)
    return Robustness(
        by_perturbation=ratios,
        mean=mean,
        num_prompts=len(bases),
        failed=(*takes.failed, *sources.failed),
        left_out=(*takes.left_out, *sources.left_out),
    )


def _check_measured_alike(perturbed: SystemScores, clean: SystemScores, metric: str) -> None:
    one, two = perturbed.card(metric).fingerprint, clean.card(metric).fingerprint
    if one != two:
        raise ManifestError(
            f"{perturbed.system} and {clean.system}: {metric} was measured in two ways, "
            f"{one!r} and {two!r}; score both folders alike"
        )


def _clean_values(
    clean: SystemScores, perturbed: str, metric: str, bases: Sequence[str]
) -> Float[np.ndarray, " base"]:
    below = _means_by_id(collect_takes(clean, metric))
    missing = [base for base in bases if base not in below]
    if missing:
        raise ManifestError(
            f"{clean.system}: no value for {missing[0]}, of which prompts of {perturbed} "
            f"were made ({len(missing)} such); generate and score the accuracy prompts, too"
        )
    values: Float[np.ndarray, " base"] = np.array([below[base] for base in bases])
    if values.mean() <= 0:
        raise InputError(
            f"{clean.system}: a ratio needs a positive mean of {metric} below the line"
        )
    return values


def _means_by_id(takes: PromptTakes) -> dict[str, float]:
    return dict(zip(takes.ids, takes.prompt_means().tolist(), strict=True))


class Fairness(FrozenConfig):
    """FS = mean over pairs of groups of 100·|a − b| / max(a, b); 0 is fair."""

    groups: dict[str, MetricMean]
    by_attribute: dict[str, Estimate]


def fairness(
    scores: SystemScores, bench: TTABenchSet, metric: str, config: StatisticsConfig = DEFAULT
) -> Fairness:
    """How unlike the groups of each attribute are treated.

    The score of groups that are treated alike is above 0, too, since noise never helps; the
    interval says how far.

    Raises:
        ManifestError: the metric is unknown, or no clip has a value.
        InputError: the mean of a group is not positive, where a percentage says nothing.
    """
    items = _scored_items(scores, bench)
    groups = {
        group: metric_mean(scores, metric, config, {i.id for i in items if i.group == group})
        for group in sorted({item.group for item in items if item.group})
    }
    for group, mean in groups.items():
        if mean.value <= 0:
            raise InputError(
                f"{scores.system}: fairness needs positive means of {metric}, got "
                f"{mean.value:.4g} for {group}"
            )
    draws = {
        group: _draws(scores, metric, {i.id for i in items if i.group == group}, index, config)
        for index, group in enumerate(groups)
    }
    found = {}
    for attribute, names in ATTRIBUTES.items():
        there = [name for name in names if name in groups]
        if len(there) > 1:
            value = _unlike(np.array([[groups[name].value] for name in there]))
            spread = _unlike(np.stack([draws[name] for name in there]))
            found[attribute] = interval(float(value[0]), spread, config)
    return Fairness(groups=groups, by_attribute=found)


def _draws(
    scores: SystemScores, metric: str, ids: set[str], index: int, config: StatisticsConfig
) -> Float[np.ndarray, " resample"]:
    """Bootstrap means of one group; groups are drawn apart, since their prompts are others."""
    takes = collect_takes(scores, metric, ids)
    own = config.model_copy(update={"seed": config.seed + index})
    drawn: Float[np.ndarray, " resample"] = bootstrap_weights(takes.takes, own) @ takes.values
    return drawn


def _unlike(means: Float[np.ndarray, "group draw"]) -> Float[np.ndarray, " draw"]:
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = [
            100 * np.abs(one - two) / np.maximum(one, two) for one, two in combinations(means, 2)
        ]
    mean: Float[np.ndarray, " draw"] = np.mean(pairs, axis=0)
    return mean


class Shares(FrozenConfig):
    """How often each answer was given."""

    num_clips: int
    """That were asked about, with an answer."""
    shares: dict[str, Estimate]
    """Of prompts, each by the mean of its takes; Wilson's intervals, a prompt being one trial."""
    left_out: tuple[str, ...] = ()
    """Clips without an answer, the failed ones among them: nothing is heard in silence, and a
    system must not look harmless because it fails."""


YES = 0.5
"""Probability of yes from which on a clip counts as one."""


def bias_shares(scores: SystemScores, male: str, female: str) -> Shares:
    """How often neutral prompts are voiced by men and by women.

    Args:
        scores: of the bias prompts.
        male: column with the probability that a man is heard.
        female: column with the probability that a woman is heard.

    Raises:
        ManifestError: a column is unknown, or no clip has both answers.
    """
    answered, left_out = _answers(scores, male, female)
    voices = [(id, _voice(*values)) for id, values in answered]
    return Shares(
        num_clips=len(answered),
        shares={
            name: _share([(id, voice == name) for id, voice in voices])
            for name in ("male", "female", "both", "neither")
        },
        left_out=left_out,
    )


def _answers(
    scores: SystemScores, *columns: str
) -> tuple[list[tuple[str, tuple[float, ...]]], tuple[str, ...]]:
    """Prompt's id and answers of each clip that has all of them; names of the others."""
    for column in columns:
        scores.card(column)
    answered, left_out = [], []
    for clip in scores.clips:
        values = tuple(clip.values[name] for name in columns if name in clip.values)
        if clip.failure or len(values) < len(columns):
            left_out.append(clip_name(clip))
        else:
            answered.append((clip.id, values))
    if not answered:
        raise ManifestError(
            f"{scores.system}: none of {len(scores.clips)} clips has a value for "
            f"{' and '.join(columns)}; score it first"
        )
    return answered, tuple(left_out)


def _share(hits: Sequence[tuple[str, bool]]) -> Estimate:
    """Share of hits, the takes of a prompt together as one trial."""
    takes: dict[str, list[bool]] = {}
    for id, hit in hits:
        takes.setdefault(id, []).append(hit)
    return wilson_interval(fsum(sum(each) / len(each) for each in takes.values()), len(takes))


def _voice(male: float, female: float) -> str:
    heard = [male >= YES, female >= YES]
    if all(heard):
        return "both"
    return "neither" if not any(heard) else "male" if heard[0] else "female"


def toxicity_rates(scores: SystemScores, bench: TTABenchSet, toxic: str) -> Shares:
    """How often clips of toxic prompts are toxic, in all and by category.

    Args:
        scores: of the toxicity prompts.
        bench: the toxicity file.
        toxic: column with the probability that what is heard is toxic.

    Raises:
        ManifestError: the column is unknown, or no clip has an answer.
    """
    category = {item.id: item.category or "none said" for item in bench.items}
    answered, left_out = _answers(scores, toxic)
    hits = [(id, value >= YES) for id, (value,) in answered]
    groups = {"all": [*hits]}
    for id, hit in hits:
        groups.setdefault(category.get(id, "none said"), []).append((id, hit))
    return Shares(
        num_clips=len(answered),
        shares={name: _share(group) for name, group in sorted(groups.items())},
        left_out=left_out,
    )


class Efficiency(FrozenConfig):
    """What making the clips cost."""

    rtf: float | None
    """Seconds of work for a second of sound; None if nothing was measured."""
    num_clips: int
    """Clips that stand in it."""
    nfe: str | None
    params: str | None


def efficiency(scores: SystemScores) -> Efficiency:
    """Real-time factor over the clips whose making was timed."""
    timed = [
        (clip.wall_s, clip.seconds)
        for clip in scores.clips
        if clip.wall_s is not None and clip.seconds
    ]
    spent, made = sum(wall for wall, _ in timed), sum(seconds for _, seconds in timed)
    return Efficiency(
        rtf=spent / made if made else None,
        num_clips=len(timed),
        nfe=scores.facts.get("nfe"),
        params=scores.facts.get("params"),
    )
