"""Two systems side by side: paired differences under one protocol, corrected for their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import ManifestError
from resonate_audio.evaluation.scores.scored import SystemScores
from resonate_audio.evaluation.statistics import (
    DEFAULT,
    MetricMean,
    PairedDifference,
    StatisticsConfig,
    holm,
    metric_mean,
    paired_difference,
)

SIGNIFICANT = 0.05
"""Corrected p from which on a difference counts as one."""


class MetricChange(FrozenConfig):
    """What one metric says of two systems."""

    metric: str
    first: MetricMean
    second: MetricMean
    difference: PairedDifference
    """Second minus first."""
    p_holm: float
    """p of the difference, corrected for the number of metrics that were compared."""
    is_better: bool | None
    """Whether the second is better; None: the corrected p is not under 0.05."""
    was_reward: bool
    """The metric was a reward of a system's training: it shows nothing by itself."""


class Comparison(FrozenConfig):
    """Two systems under one protocol."""

    first: str
    second: str
    changes: tuple[MetricChange, ...]


def compare(
    first: SystemScores,
    second: SystemScores,
    metrics: Sequence[str] | None = None,
    config: StatisticsConfig = DEFAULT,
) -> Comparison:
    """Compare two systems on the same prompts and seeds.

    Args:
        first: the baseline.
        second: what it is compared with.
        metrics: names of cards; None: all that both were scored with.
        config: draws and seed.

    Raises:
        ManifestError: their protocols differ, or one metric was measured in two ways; names the
            field. Or they have no metric in common, or not the same clips.
    """
    chosen = common_metrics(first, second) if metrics is None else list(metrics)
    if not chosen:
        raise ManifestError(f"{first.system}, {second.system}: scored with no metric in common")
    check_comparable(first, second, chosen)
    differences = [paired_difference(first, second, metric, config) for metric in chosen]
    corrected = holm([difference.p for difference in differences])
    return Comparison(
        first=first.system,
        second=second.system,
        changes=tuple(
            _change(first, second, difference, p, config)
            for difference, p in zip(differences, corrected, strict=True)
        ),
    )


def common_metrics(first: SystemScores, second: SystemScores) -> list[str]:
    """Metrics that have values of single clips in both, in the first's order."""
    theirs = {card.name for card in second.cards} - second.set_values.keys()
    return [
        card.name
        for card in first.cards
        if card.name in theirs and card.name not in first.set_values
    ]


def check_comparable(first: SystemScores, second: SystemScores, metrics: Sequence[str]) -> None:
    """Refuse to compare what was not measured alike.

    Raises:
        ManifestError: names the first field that differs, with both values.
    """
    for field, ours, theirs in _differences(first, second, metrics):
        raise ManifestError(
            f"{first.system} and {second.system} are not comparable: {field} is {ours!r} in "
            f"{first.system} and {theirs!r} in {second.system}"
        )


def _differences(
    first: SystemScores, second: SystemScores, metrics: Sequence[str]
) -> Iterator[tuple[str, str | None, str | None]]:
    for field in dict.fromkeys([*first.protocol, *second.protocol]):
        ours, theirs = first.protocol.get(field), second.protocol.get(field)
        if ours != theirs:
            yield field, ours, theirs
    for metric in metrics:
        one, two = first.card(metric), second.card(metric)
        for key in dict.fromkeys([*one.details, *two.details]):
            if one.details.get(key) != two.details.get(key):
                yield f"{metric}: {key}", one.details.get(key), two.details.get(key)
        if one.fingerprint != two.fingerprint:
            yield f"{metric}: fingerprint", one.fingerprint, two.fingerprint


def _change(
    first: SystemScores,
    second: SystemScores,
    difference: PairedDifference,
    p_holm: float,
    config: StatisticsConfig,
) -> MetricChange:
    metric = difference.metric
    card = first.card(metric)
    rises = (difference.value > 0) == card.higher_is_better
    return MetricChange(
        metric=metric,
        first=metric_mean(first, metric, config),
        second=metric_mean(second, metric, config),
        difference=difference,
        p_holm=p_holm,
        is_better=rises if p_holm < SIGNIFICANT else None,
        was_reward=card.was_reward or second.card(metric).was_reward,
    )
