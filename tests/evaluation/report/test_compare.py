"""Two systems are compared on the same clips, under one protocol, or not at all."""

from __future__ import annotations

import re

import pytest

from resonate_audio.core.errors import ManifestError
from resonate_audio.evaluation.report.compare import common_metrics, compare
from resonate_audio.evaluation.scores.scored import MetricCard
from resonate_audio.evaluation.statistics import holm
from tests.evaluation.made_scores import system

IDS = [f"{number:04d}" for number in range(8)]


def test_a_system_that_is_better_on_every_prompt_is_better() -> None:
    first = system("one", {id: 0.1 * n for n, id in enumerate(IDS)})
    second = system("two", {id: 0.1 * n + 0.5 for n, id in enumerate(IDS)})
    (change,) = compare(first, second).changes
    assert change.is_better is True
    assert change.difference.value == pytest.approx(0.5)
    assert change.p_holm == pytest.approx(2 / 2**8)


def test_less_is_better_where_the_card_says_so() -> None:
    lower = {"update": {"higher_is_better": False}}
    first, second = (
        made.model_copy(update={"cards": tuple(c.model_copy(**lower) for c in made.cards)})
        for made in (
            system("one", dict.fromkeys(IDS, 1.0)),
            system("two", dict.fromkeys(IDS, 2.0)),
        )
    )
    assert compare(first, second).changes[0].is_better is False


def test_equal_systems_show_no_difference() -> None:
    values = {id: float(n % 3) for n, id in enumerate(IDS)}
    (change,) = compare(system("one", values), system("two", values)).changes
    assert change.is_better is None
    assert change.p_holm == 1.0


def test_p_values_are_corrected_for_the_number_of_metrics() -> None:
    first, second = (
        made.model_copy(
            update={
                "cards": (*made.cards, MetricCard(name="pq", fingerprint="two")),
                "clips": tuple(
                    clip.model_copy(update={"values": clip.values | {"pq": 5.0 + shift * n}})
                    for n, clip in enumerate(made.clips)
                ),
            }
        )
        for made, shift in (
            (system("one", {id: 0.1 * n for n, id in enumerate(IDS)}), 0.0),
            (system("two", {id: 0.1 * n + 0.5 for n, id in enumerate(IDS)}), 0.1),
        )
    )
    changes = compare(first, second).changes
    assert [change.metric for change in changes] == ["clap", "pq"]
    assert [c.p_holm for c in changes] == holm([c.difference.p for c in changes])


def test_another_protocol_is_refused_and_the_field_is_named() -> None:
    first = system("one", {"a": 1.0}, protocol={"prompt_set_sha256": "abc"})
    second = system("two", {"a": 1.0}, protocol={"prompt_set_sha256": "abd"})
    with pytest.raises(ManifestError, match="prompt_set_sha256 is 'abc' in one and 'abd' in two"):
        compare(first, second)


def test_another_way_of_measuring_is_refused_and_the_detail_is_named() -> None:
    def resampled(name: str, by: str, fingerprint: str):  # noqa: ANN202
        made = system(name, {"a": 1.0}, fingerprint=fingerprint)
        (card,) = made.cards
        card = card.model_copy(update={"details": {"resampler": by}})
        return made.model_copy(update={"cards": (card,)})

    with pytest.raises(ManifestError, match=re.escape("clap: resampler is 'soxr' in one")):
        compare(resampled("one", "soxr", "f1"), resampled("two", "sinc", "f2"))
    with pytest.raises(ManifestError, match="clap: fingerprint is 'f1' in one and 'f2' in two"):
        compare(resampled("one", "soxr", "f1"), resampled("two", "soxr", "f2"))


def test_systems_without_a_metric_in_common_are_refused() -> None:
    with pytest.raises(ManifestError, match="no metric in common"):
        compare(system("one", {"a": 1.0}, metric="clap"), system("two", {"a": 1.0}, metric="pq"))


def test_values_of_whole_sets_are_not_compared_clip_by_clip() -> None:
    made = system("one", {"a": 1.0}).model_copy(update={"set_values": {"clap": 3.0}})
    assert common_metrics(made, made) == []


def test_a_metric_that_was_a_reward_of_either_is_marked() -> None:
    first, second = system("one", {"a": 1.0}), system("two", {"a": 2.0})
    (card,) = second.cards
    second = second.model_copy(update={"cards": (card.model_copy(update={"was_reward": True}),)})
    assert compare(first, second).changes[0].was_reward
