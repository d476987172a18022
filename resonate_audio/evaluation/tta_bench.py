"""TTA-Bench: what its prompts mean, and its dimensions from the scores of a system.

Its six files hold 2,999 prompts. Formulas are in docs/tta-bench.md, with what of them could not be
verified. Known slips of the files are counted when they are read, and never repaired in silence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, read_prompt_set
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

Dimension = Literal[
    "accuracy", "generalization", "robustness", "fairness", "bias", "toxicity", "other"
]
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gender": ("male", "female"),
    "age": ("old", "middle", "youth", "child"),
    "language": ("en", "zh", "other"),
}
"""Groups of the fairness prompts by the attribute that tells them apart."""
PERTURBATIONS = ("uppercase", "synonym", "misspelling", "space", "rewrite", "punctuate")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class TTAItem:
    """One prompt and what the benchmark says of it."""

    id: str
    prompt: str
    dimension: Dimension
    event_count: int | None = None
    event_relation: str | None = None
    """How its events go together; None for a single event, or where nothing is said."""
    event_list: tuple[str, ...] = ()
    source: str | None = None
    perturbation: str | None = None
    """What was done to a robustness prompt."""
    base_id: str | None = None
    """The unperturbed accuracy prompt of a robustness prompt."""
    group: str | None = None
    """Group of a fairness prompt."""
    category: str | None = None
    """Category of a toxicity prompt."""


@dataclass(frozen=True)
class TTABenchSet:
    """One file."""

    name: str
    items: tuple[TTAItem, ...]
    """By id."""
    slips: tuple[str, ...]
    """What is wrong in the file, one line each."""

    def ids(self, wanted: Callable[[TTAItem], bool]) -> tuple[str, ...]:
        """Ids of the prompts that fulfil a condition."""
        return tuple(item.id for item in self.items if wanted(item))

    @property
    def dimension(self) -> Dimension:
        """What its prompts measure.

        Raises:
            ManifestError: they say nothing of it, or measure several things.
        """
        found = sorted({item.dimension for item in self.items})
        if len(found) > 1:
            raise ManifestError(
                f"{self.name}: holds prompts of {' and '.join(found)}; give one of TTA-Bench's "
                "files"
            )
        if found == ["other"]:
            raise ManifestError(
                f"{self.name}: no prompt says which dimension of TTA-Bench it is of; give one of "
                "its files, such as acc_prompt.json"
            )
        return found[0]


def read_tta_bench(path: Path) -> TTABenchSet:
    """Read one of the benchmark's files, or a sample of it in any form of a prompt set.

    Raises:
        ManifestError: as `read_prompt_set`, or a field has another type than it should.
    """
    prompts = read_prompt_set(path)
    return as_tta_bench(prompts.name, prompts.items)


def as_tta_bench(name: str, prompts: Sequence[PromptItem]) -> TTABenchSet:
    """Read what the prompts' other fields mean.

    Raises:
        ManifestError: a field has another type than it should; names the prompt.
    """
    items = tuple(sorted((_item(prompt) for prompt in prompts), key=lambda item: item.id))
    return TTABenchSet(name, items, tuple(_slips(items, prompts)))


def _item(prompt: PromptItem) -> TTAItem:
    meta = prompt.meta
    dimension = _dimension(meta)
    notes = _word(meta.get("notes"))
    count = meta.get("event_count")
    if count is not None and not isinstance(count, int):
        raise ManifestError(f"prompt {prompt.id}: event_count is {count!r}; expected a number")
    return TTAItem(
        id=prompt.id,
        prompt=prompt.prompt,
        dimension=dimension,
        event_count=count,
        event_relation=_word(meta.get("event_relation")),
        event_list=_texts(prompt.id, "event_list", meta.get("event_list")),
        source=_word(meta.get("source")),
        perturbation=_word(meta.get("perturbation_type")),
        base_id=_base_id(prompt.id, notes) if dimension == "robustness" else None,
        group=notes if dimension == "fairness" else None,
        category=next(iter(_texts(prompt.id, "categories", meta.get("categories"))), None),
    )


def _dimension(meta: Mapping[str, Any]) -> Dimension:
    said = str(meta.get("Dimensions of evaluation", "")).lower()
    known: tuple[Dimension, ...] = (
        "accuracy", "generalization", "robustness", "fairness", "bias",
    )  # fmt: skip
    for dimension in known:
        if said == dimension:
            return dimension
    return "toxicity" if "categories" in meta else "other"


def _word(value: Any) -> str | None:
    """A text that says something; the files write the word "None" for nothing."""
    return None if value in (None, "", "None") else str(value)


def _texts(id: str, field: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ManifestError(f"prompt {id}: {field} is {value!r}; expected a list of texts")
    return tuple(value)


def _base_id(id: str, notes: str | None) -> str:
    found = _NUMBER.match(notes or "")
    if found is None:
        raise ManifestError(
            f"prompt {id}: notes are {notes!r}; expected the number of its accuracy prompt"
        )
    return f"prompt_{int(found[0]):04d}"


def _slips(items: Sequence[TTAItem], prompts: Sequence[PromptItem]) -> Iterable[str]:
    first: dict[str, str] = {}
    for item in items:
        earlier = first.setdefault(item.prompt, item.id)
        if earlier != item.id:
            yield f"{earlier} and {item.id} are the same prompt"
        if item.event_count is not None and len(item.event_list) != item.event_count:
            yield f"{item.id}: event_count {item.event_count}, but {len(item.event_list)} events"
    words = sum(prompt.meta.get("event_relation") == "None" for prompt in prompts)
    if words:
        yield f"{words} prompts have the word None as event_relation; read as none"
    numbers = [int(found[0]) for item in items if (found := re.search(r"\d+$", item.id))]
    if len(numbers) == len(items) > 2 and len(items) > (numbers[-1] - numbers[0]) / 2:
        there = set(numbers)
        for number in range(numbers[0], numbers[-1] + 1):
            if number not in there:
                yield f"prompt_{number:04d} is missing"


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
    one, two = perturbed.card(metric).fingerprint, clean.card(metric).fingerprint
    if one != two:
        raise ManifestError(
            f"{perturbed.system} and {clean.system}: {metric} was measured in two ways, "
            f"{one!r} and {two!r}; score both folders alike"
        )
    takes = collect_takes(perturbed, metric)
    above, below = _means_by_id(takes), _means_by_id(collect_takes(clean, metric))
    items = [item for item in bench.items if item.id in above]
    kinds = sorted({item.perturbation or "none said" for item in items})
    bases = sorted({str(item.base_id) for item in items})
    missing = [base for base in bases if base not in below]
    if missing:
        raise ManifestError(
            f"{clean.system}: no value for {missing[0]}, of which prompts of {perturbed.system} "
            f"were made ({len(missing)} such); generate and score the accuracy prompts, too"
        )
    clean_values = np.array([below[base] for base in bases])
    if clean_values.mean() <= 0:
        raise InputError(
            f"{clean.system}: a ratio needs a positive mean of {metric} below the line"
        )
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
    """Wilson's intervals."""
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
    hits = Counter(_voice(*values) for _, values in answered)
    return Shares(
        num_clips=len(answered),
        shares={
            name: wilson_interval(hits[name], len(answered))
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
    groups = {"all": [value for _, (value,) in answered]}
    for id, (value,) in answered:
        groups.setdefault(category.get(id, "none said"), []).append(value)
    return Shares(
        num_clips=len(answered),
        shares={
            name: wilson_interval(sum(value >= YES for value in values), len(values))
            for name, values in sorted(groups.items())
        },
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
