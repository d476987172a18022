"""Scored folders to one report: means, paired changes, what a gamed judge goes with, failures.

`make_report` computes and is the whole of what ``report.json`` holds; the page, the CSV and the
LaTeX table only show it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.evaluation.clips.folder import (
    PROMPTS,
    SYSTEM,
    read_manifest,
    read_system_prompts,
)
from resonate_audio.evaluation.clips.prompt_sets import PromptSet
from resonate_audio.evaluation.report.compare import SIGNIFICANT, check_comparable
from resonate_audio.evaluation.scores.scored import MetricCard, SystemScores, read_scores
from resonate_audio.evaluation.statistics import (
    DEFAULT,
    Estimate,
    MetricMean,
    PairedDifference,
    StatisticsConfig,
    bootstrap_mean,
    clip_name,
    collect_takes,
    holm,
    metric_mean,
    paired_difference,
)
from resonate_audio.evaluation.tta_bench.prompts import TTAItem, as_tta_bench

SIGN_PREFIX = "sign/"
LEAST_CHANGE = {"clipped_share": 1e-4}
"""Changes of a sign under this cannot be heard, however sure they are."""
CLEAR_SIGN = 0.25
"""Change of a sign, in standard deviations of the baseline's clips, that is worth a word."""
SINGLE = "single"
"""Relation of prompts with one event."""

Role = Literal["training judge", "held-out judge", "sound"]


@dataclass(frozen=True)
class ScoredFolder:
    """A system and where its sounds lie."""

    folder: Path
    scores: SystemScores
    prompts: PromptSet | None = None
    """With their other fields, for the grid; None if the folder does not have them."""


class ReportSystem(FrozenConfig):
    """One system, apart from its scores."""

    name: str
    title: str
    """As tables call it."""
    folder: str
    facts: dict[str, str]
    num_clips: int
    failures: dict[str, tuple[str, ...]]
    """Names of clips by why they failed."""
    real_time_factor: float | None
    """Seconds of making a second of sound; None if they were not taken."""


class Cell(FrozenConfig):
    """One metric of one system."""

    system: str
    metric: str
    mean: MetricMean | None = None
    """None: no clip has a value, or the value is one of the whole set."""
    set_value: float | None = None
    """Of metrics that only a set has; has no interval."""
    change: PairedDifference | None = None
    """This system minus the baseline."""
    p_holm: float | None = None
    """p of the change, corrected for the number of changes in the report."""
    is_better: bool | None = None
    """Whether it is better than the baseline; None: not shown, or nothing to compare."""
    is_reward: bool = False
    """The judge was a reward of this system's training: its rise shows nothing by itself."""

    @property
    def value(self) -> float | None:
        """The number that a table prints."""
        return self.set_value if self.mean is None else self.mean.value


class Change(FrozenConfig):
    """How far a system moved from the baseline in one quantity: a metric, or a sign of its sound.

    Standardized numbers are in standard deviations of the baseline's clips, so that quantities
    stand beside each other.
    """

    system: str
    quantity: str
    role: Role
    mean: float
    """Of this system."""
    change: Estimate
    standardized: Estimate | None
    """None: the baseline's clips are all alike."""
    is_better: bool | None = None


class GridCell(FrozenConfig):
    """Mean over the prompts with so many events that go together so."""

    system: str
    metric: str
    count: int
    relation: str
    mean: float
    half_width: float | None
    """Of a 95 % interval, 1.96 standard errors over prompts; None for a single prompt."""
    num_prompts: int


class Report(FrozenConfig):
    """All that a report says."""

    title: str
    baseline: str | None
    protocol: dict[str, str]
    statistics: StatisticsConfig
    systems: tuple[ReportSystem, ...]
    cards: tuple[MetricCard, ...]
    """In the order of columns."""
    cells: tuple[Cell, ...]
    signs: dict[str, dict[str, float]]
    """Mean of each sign, by system."""
    changes: tuple[Change, ...]
    grid: tuple[GridCell, ...]
    warnings: tuple[str, ...]

    def cell(self, system: str, metric: str) -> Cell:
        """One cell of the table; an empty one if the system was not scored with the metric."""
        return self._cells.get((system, metric), Cell(system=system, metric=metric))

    @property
    def _cells(self) -> dict[tuple[str, str], Cell]:
        return {(cell.system, cell.metric): cell for cell in self.cells}

    def title_of(self, system: str) -> str:
        """How tables call a system."""
        return next(one.title for one in self.systems if one.name == system)

    def best(self, metric: str) -> frozenset[str]:
        """Systems with the best value of a metric; none where there is nothing to be better than.

        A failed column of one system, or one value for all, has no best.
        """
        card = next(card for card in self.cards if card.name == metric)
        values = {cell.system: cell.value for cell in self.cells if cell.metric == metric}
        known = {system: value for system, value in values.items() if value is not None}
        if len(set(known.values())) < 2:
            return frozenset()
        top = max(known.values()) if card.higher_is_better else min(known.values())
        return frozenset(system for system, value in known.items() if value == top)


def read_folder(folder: Path) -> ScoredFolder:
    """Read what was scored, and the prompts if they lie beside it.

    Raises:
        ManifestError: a file is missing or broken, or clips were made anew after they were scored.
    """
    scores = read_scores(folder)
    _check_same_clips(folder, scores)
    has_prompts = (folder / PROMPTS).is_file() and (folder / SYSTEM).is_file()
    return ScoredFolder(folder, scores, read_system_prompts(folder) if has_prompts else None)


def _check_same_clips(folder: Path, scores: SystemScores) -> None:
    """Refuse scores of clips that are not those of the folder's manifest any more."""
    if not (folder / SYSTEM).is_file():
        return
    lines = read_manifest(folder).clips
    scored = [clip for clip in scores.clips if clip.sha256 and (clip.id, clip.seed) in lines]
    other = [clip for clip in scored if lines[clip.id, clip.seed].sha256 != clip.sha256]
    if other:
        raise ManifestError(
            f"{folder}: {len(other)} of {len(scores.clips)} clips were made anew after they were "
            f"scored, such as {clip_name(other[0])}; run resonate eval score again"
        )


def make_report(
    folders: Sequence[ScoredFolder],
    baseline: str | None = None,
    title: str = "Evaluation",
    config: StatisticsConfig = DEFAULT,
) -> Report:
    """Compute a report.

    Args:
        folders: systems in the order of rows.
        baseline: name of the system that the others are compared with; None: the first, if there
            are others.
        title: headline.
        config: draws and seed.

    Raises:
        InputError: no system, two of one name, or no baseline of that name.
        ManifestError: two systems were not measured alike, or not on the same clips; names the
            field.
    """
    systems = _check_systems(folders, baseline)
    first = _baseline(systems, baseline)
    cells = _cells(systems, first, config)
    changes = [] if first is None else list(_changes(systems, first, cells, config))
    return Report(
        title=title,
        baseline=None if first is None else first.system,
        protocol=systems[0].protocol,
        statistics=config,
        systems=tuple(_systems(folders)),
        cards=_cards(systems),
        cells=tuple(cells),
        signs={scores.system: _sign_means(scores) for scores in systems},
        changes=tuple(changes),
        grid=tuple(_grid(systems, next((f.prompts for f in folders if f.prompts), None))),
        warnings=tuple(_warnings(systems, first, cells, changes)),
    )


def reward_metrics(scores: SystemScores) -> frozenset[str]:
    """Columns of judges that were rewards of a system's training, all columns of such a judge."""
    judges = {card.fingerprint for card in scores.cards if card.was_reward}
    return frozenset(card.name for card in scores.cards if card.fingerprint in judges)


def sign_title(sign: str) -> str:
    """A sign in words, with its unit."""
    known = {
        "loudness_lufs": "Loudness (LUFS)",
        "silent_share": "Silence (share)",
        "clipped_share": "Clipping (share)",
        "energy_above_8k_share": "Energy above 8 kHz (share)",
    }
    return known.get(sign, sign.replace("_", " "))


def _check_systems(folders: Sequence[ScoredFolder], baseline: str | None) -> list[SystemScores]:
    systems = [one.scores for one in folders]
    if not systems:
        raise InputError("a report needs a scored folder; make one with resonate eval score")
    twice = [name for name, count in Counter(s.system for s in systems).items() if count > 1]
    if twice:
        where = " and ".join(str(one.folder) for one in folders if one.scores.system == twice[0])
        raise InputError(f"two systems are called {twice[0]}: {where}; rename one")
    names = [scores.system for scores in systems]
    if baseline is not None and baseline not in names:
        raise InputError(f"no system is called {baseline}; there are {', '.join(names)}")
    for one, two in combinations(systems, 2):
        theirs = {card.name for card in two.cards}
        check_comparable(one, two, [card.name for card in one.cards if card.name in theirs])
    return systems


def _baseline(systems: Sequence[SystemScores], name: str | None) -> SystemScores | None:
    if len(systems) == 1:
        return None
    return next((scores for scores in systems if scores.system == name), systems[0])


def _systems(folders: Sequence[ScoredFolder]) -> Iterator[ReportSystem]:
    titles = Counter(one.scores.facts.get("title", one.scores.system) for one in folders)
    for one in folders:
        scores = one.scores
        title = scores.facts.get("title", scores.system)
        failures: dict[str, tuple[str, ...]] = {}
        for clip in scores.clips:
            if clip.failure is not None:
                failures[clip.failure] = (
                    *failures.get(clip.failure, ()),
                    f"{clip.id}, seed {clip.seed}",
                )
        yield ReportSystem(
            name=scores.system,
            title=title if titles[title] == 1 else scores.system,
            folder=str(one.folder),
            facts=scores.facts,
            num_clips=len(scores.clips),
            failures=failures,
            real_time_factor=_real_time_factor(scores),
        )


def _real_time_factor(scores: SystemScores) -> float | None:
    timed = [(c.wall_s, c.seconds) for c in scores.clips if c.wall_s is not None and c.seconds]
    if not timed:
        return None
    return sum(wall_s for wall_s, _ in timed) / sum(seconds for _, seconds in timed)


def _cards(systems: Sequence[SystemScores]) -> tuple[MetricCard, ...]:
    """One card for each column; whose reward it was is told by the cells."""
    cards: dict[str, MetricCard] = {}
    for card in (card for scores in systems for card in scores.cards):
        cards.setdefault(card.name, card.model_copy(update={"was_reward": False}))
    return tuple(cards.values())


def _cells(
    systems: Sequence[SystemScores], first: SystemScores | None, config: StatisticsConfig
) -> list[Cell]:
    cells = [_cell(scores, first, card.name, config) for scores in systems for card in scores.cards]
    higher = {card.name: card.higher_is_better for scores in systems for card in scores.cards}
    corrected = iter(holm([cell.change.p for cell in cells if cell.change is not None]))
    return [
        cell if cell.change is None else _judge(cell, next(corrected), higher[cell.metric])
        for cell in cells
    ]


def _cell(
    scores: SystemScores, first: SystemScores | None, metric: str, config: StatisticsConfig
) -> Cell:
    cell = Cell(
        system=scores.system,
        metric=metric,
        is_reward=metric in reward_metrics(scores),
        set_value=scores.set_values.get(metric),
    )
    if metric in scores.set_values or not _has_values(scores, metric):
        return cell
    update: dict[str, object] = {"mean": metric_mean(scores, metric, config)}
    if first is not None and scores is not first and _shares(scores, first, metric):
        update["change"] = paired_difference(first, scores, metric, config)
    return cell.model_copy(update=update)


def _judge(cell: Cell, p_holm: float, higher_is_better: bool) -> Cell:
    assert cell.change is not None, "only changes have a p"
    rises = (cell.change.value > 0) == higher_is_better
    verdict = rises if p_holm < SIGNIFICANT else None
    return cell.model_copy(update={"p_holm": p_holm, "is_better": verdict})


def _has_values(scores: SystemScores, metric: str) -> bool:
    return any(value is not None for value in scores.values(metric))


def _shares(scores: SystemScores, first: SystemScores, metric: str) -> bool:
    """Whether some clip has a value of the metric in both."""
    if metric in first.set_values or all(card.name != metric for card in first.cards):
        return False
    theirs = zip(first.clips, first.values(metric), strict=True)
    known = {(clip.id, clip.seed) for clip, value in theirs if value is not None}
    ours = zip(scores.clips, scores.values(metric), strict=True)
    return any(value is not None and (clip.id, clip.seed) in known for clip, value in ours)


def with_signs(scores: SystemScores) -> SystemScores:
    """The same system with each sign as a column, so that statistics can read them."""
    names = dict.fromkeys(name for clip in scores.clips for name in clip.signs)
    cards = tuple(MetricCard(name=f"{SIGN_PREFIX}{name}", fingerprint="signs") for name in names)
    clips = tuple(
        clip.model_copy(update={"values": {f"{SIGN_PREFIX}{k}": v for k, v in clip.signs.items()}})
        for clip in scores.clips
    )
    return scores.model_copy(update={"cards": cards, "clips": clips, "set_values": {}})


def _sign_means(scores: SystemScores) -> dict[str, float]:
    """Mean of each sign over prompts, of clips that are sounds."""
    signs = with_signs(scores)
    return {
        card.name.removeprefix(SIGN_PREFIX): float(
            collect_takes(signs, card.name).prompt_means().mean()
        )
        for card in signs.cards
        if _has_values(signs, card.name)
    }


def _changes(
    systems: Sequence[SystemScores],
    first: SystemScores,
    cells: Sequence[Cell],
    config: StatisticsConfig,
) -> Iterator[Change]:
    signs = with_signs(first)
    for scores in systems:
        rewards = reward_metrics(scores)
        for cell in cells:
            if cell.system == scores.system and cell.change is not None and cell.mean is not None:
                yield Change(
                    system=cell.system,
                    quantity=cell.metric,
                    role="training judge" if cell.metric in rewards else "held-out judge",
                    mean=cell.mean.value,
                    change=_plain(cell.change),
                    standardized=_standardize(cell.change, first, cell.metric),
                    is_better=cell.is_better,
                )
        if scores is not first:
            yield from _sign_changes(with_signs(scores), signs, config)


def _sign_changes(
    scores: SystemScores, first: SystemScores, config: StatisticsConfig
) -> Iterator[Change]:
    for card in scores.cards:
        if not _has_values(scores, card.name) or not _shares(scores, first, card.name):
            continue
        change = _paired_interval(first, scores, card.name, config)
        yield Change(
            system=scores.system,
            quantity=card.name.removeprefix(SIGN_PREFIX),
            role="sound",
            mean=float(collect_takes(scores, card.name).prompt_means().mean()),
            change=change,
            standardized=_standardize(change, first, card.name),
        )


def _paired_interval(
    first: SystemScores, second: SystemScores, metric: str, config: StatisticsConfig
) -> Estimate:
    """Second minus first, without the test: a sign is described and not tested."""
    before = _values_by_take(first, metric)
    changes = {
        key: after - before[key]
        for key, after in sorted(_values_by_take(second, metric).items())
        if key in before
    }
    takes = Counter(prompt_id for prompt_id, _ in changes)
    return bootstrap_mean(np.array(list(changes.values())), tuple(takes.values()), config)


def _values_by_take(scores: SystemScores, metric: str) -> dict[tuple[str, int], float]:
    valued = zip(scores.clips, scores.values(metric), strict=True)
    return {(clip.id, clip.seed): value for clip, value in valued if value is not None}


def _plain(estimate: Estimate) -> Estimate:
    return Estimate(value=estimate.value, low=estimate.low, high=estimate.high)


def _standardize(change: Estimate, first: SystemScores, metric: str) -> Estimate | None:
    values = [value for value in first.values(metric) if value is not None]
    spread = float(np.std(values))
    if spread <= 1e-12 * max(1.0, abs(float(np.mean(values)))):
        return None
    return Estimate(value=change.value / spread, low=change.low / spread, high=change.high / spread)


def _grid(systems: Sequence[SystemScores], prompts: PromptSet | None) -> Iterator[GridCell]:
    items = {} if prompts is None else _counted(prompts)
    if not items:
        return
    for scores in systems:
        for card in scores.cards:
            if card.name in scores.set_values or not _has_values(scores, card.name):
                continue
            takes = collect_takes(scores, card.name)
            groups: dict[tuple[int, str], list[float]] = {}
            for prompt_id, mean in zip(takes.ids, takes.prompt_means().tolist(), strict=True):
                if prompt_id in items:
                    groups.setdefault(items[prompt_id], []).append(mean)
            for (count, relation), means in sorted(groups.items()):
                yield _grid_cell(scores.system, card.name, count, relation, means)


def _counted(prompts: PromptSet) -> Mapping[str, tuple[int, str]]:
    """Number of events and their relation, of prompts that say both."""
    if not any("event_count" in item.meta for item in prompts.items):
        return {}
    bench = as_tta_bench(prompts.name, prompts.items)
    pairs = ((item.id, _group(item)) for item in bench.items)
    return {prompt_id: group for prompt_id, group in pairs if group is not None}


def _group(item: TTAItem) -> tuple[int, str] | None:
    if item.event_count is None:
        return None
    relation = item.event_relation or (SINGLE if item.event_count == 1 else "not said")
    return item.event_count, relation


def _grid_cell(
    system: str, metric: str, count: int, relation: str, means: Sequence[float]
) -> GridCell:
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else None
    return GridCell(
        system=system,
        metric=metric,
        count=count,
        relation=relation,
        mean=math.fsum(means) / len(means),
        half_width=None if error is None else 1.96 * error,
        num_prompts=len(means),
    )


def _warnings(
    systems: Sequence[SystemScores],
    first: SystemScores | None,
    cells: Sequence[Cell],
    changes: Sequence[Change],
) -> Iterator[str]:
    for scores in systems:
        own = [c for c in cells if c.system == scores.system and c.is_better is not None]
        yield from _reward_warning(scores, own)
    if first is not None:
        yield from _sign_warnings(changes, first.system)
    for scores in systems:
        yield from _failure_warning(scores)


def _reward_warning(scores: SystemScores, clear: Sequence[Cell]) -> Iterator[str]:
    """What a rise of the training judge goes with; ``clear`` are changes beyond chance."""
    rewards = reward_metrics(scores)
    rose, gained, fell = (
        [
            scores.card(cell.metric).title or cell.metric
            for cell in clear
            if (cell.metric in rewards) == is_reward and cell.is_better == is_better
        ]
        for is_reward, is_better in ((True, True), (False, True), (False, False))
    )
    if not rose:
        return
    if all(card.name in rewards for card in scores.cards):
        yield (
            f"{scores.system}: scored with nothing but its training judge, which shows nothing. "
            "Score it with a judge that no training used."
        )
    elif fell:
        yield (
            f"{scores.system}: its training judge {rose[0]} is happier while {', '.join(fell)} "
            "got worse, which no training used: it may have learnt the judge's weaknesses."
        )
    elif not gained:
        yield (
            f"{scores.system}: only its training judge {rose[0]} is happier; no judge that no "
            "training used shows a gain."
        )


def _sign_warnings(changes: Sequence[Change], first: str) -> Iterator[str]:
    """One line a system: what changed in the sounds, beyond chance and so that it can be heard."""
    found: dict[str, list[str]] = {}
    for change in changes:
        size = change.standardized
        if change.role != "sound" or size is None or size.low <= 0 <= size.high:
            continue
        moved = abs(change.change.value)
        if abs(size.value) >= CLEAR_SIGN and moved >= LEAST_CHANGE.get(change.quantity, 0.0):
            direction = "up" if size.value > 0 else "down"
            found.setdefault(change.system, []).append(
                f"{sign_title(change.quantity)} went {direction} by {moved:.3g}"
            )
    for system, signs in found.items():
        yield (
            f"{system}: against {first}, {'; '.join(signs)}. Judges can be pleased by that alone; "
            "listen."
        )


def _failure_warning(scores: SystemScores) -> Iterator[str]:
    failed = [clip for clip in scores.clips if clip.failure]
    if failed:
        without = [
            card.title or card.name
            for card in scores.cards
            if card.worst is None and card.name not in scores.set_values
        ]
        told = f", but are left out where there is none: {', '.join(without)}" if without else ""
        yield (
            f"{scores.system}: {len(failed)} of {len(scores.clips)} clips failed, such as "
            f"{clip_name(failed[0])}. They count with each metric's worst value{told}."
        )


def check_metric(report: Report, metric: str) -> None:
    """Refuse a metric that is no column of single clips.

    Raises:
        ManifestError: lists those that are.
    """
    names = [card.name for card in report.cards if _is_of_clips(report, card.name)]
    if metric not in names:
        raise ManifestError(f"no column of clips is called {metric}; there are {', '.join(names)}")


def _is_of_clips(report: Report, metric: str) -> bool:
    return any(cell.metric == metric and cell.mean is not None for cell in report.cells)
