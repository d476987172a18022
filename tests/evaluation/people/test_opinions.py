"""Opinions are averaged over raters and prompts, agreement is what the formulas say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.evaluation.people.agreement import (
    ScreeningRules,
    intraclass_correlation,
    krippendorff_alpha,
    rating_matrix,
    screen_raters,
)
from resonate_audio.evaluation.people.opinion import opinion_differences, opinion_scores
from resonate_audio.evaluation.people.ratings import (
    Rating,
    Scale,
    read_ratings,
    read_tta_ratings,
    write_ratings,
    write_tta_ratings,
)
from resonate_audio.evaluation.statistics import StatisticsConfig

NAN = float("nan")


def ratings(
    score: Callable[[int, int, int], float],
    num_raters: int = 8,
    num_prompts: int = 10,
    num_systems: int = 2,
) -> list[Rating]:
    """Every rater rates every clip: a score by rater, system and prompt."""
    return [
        Rating(
            rater=f"r{rater}",
            clip=f"s{system}-p{prompt}",
            system=f"s{system}",
            prompt=f"p{prompt}",
            axis="OVL",
            score=score(rater, system, prompt),
            ms=4000.0,
        )
        for rater in range(num_raters)
        for system in range(num_systems)
        for prompt in range(num_prompts)
    ]


def test_means_are_plain_means_best_first() -> None:
    found = opinion_scores(ratings(lambda rater, system, prompt: 1.0 + system + prompt % 3), "OVL")
    assert [score.system for score in found] == ["s1", "s0"]
    assert found[0].value == pytest.approx(np.mean([2 + n % 3 for n in range(10)]))
    assert (found[0].num_raters, found[0].num_clips, found[0].num_ratings) == (8, 10, 80)


def test_intervals_grow_with_what_raters_and_prompts_have_in_common() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(20, 1, 20))
    by_rater, by_prompt = rng.normal(size=20), rng.normal(size=20)
    apart, together = (
        opinion_scores(ratings(score, 20, 20, 1), "OVL", StatisticsConfig(num_resamples=4000))[0]
        for score in (
            lambda rater, system, prompt: 3 + noise[rater, system, prompt],
            lambda rater, system, prompt: 3 + by_rater[rater] + by_prompt[prompt],
        )
    )
    naive = 2 * 1.96 * noise.std() / 20
    assert apart.high - apart.low == pytest.approx(3**0.5 * naive, rel=0.1)
    expected = 2 * 1.96 * np.sqrt(by_rater.var() / 20 + by_prompt.var() / 20)
    assert together.high - together.low == pytest.approx(expected, rel=0.1)


def test_systems_with_the_same_scores_do_not_differ_however_often_each_prompt_was_rated() -> None:
    made = ratings(lambda rater, system, prompt: 1.0 + prompt % 5)
    thinned = [
        rating
        for rating in made
        if rating.rater == "r0" or (rating.system == "s0") == (int(rating.prompt[1:]) % 5 < 2)
    ]
    (found,) = opinion_differences(thinned, "OVL")
    assert found.value == 0
    assert found.low <= 0 <= found.high


def test_a_better_system_is_told_from_a_worse_one_and_not_from_itself() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(8, 3, 10))
    made = ratings(lambda r, s, p: 3 + 2.0 * (s == 2) + 0.3 * noise[r, s, p], num_systems=3)
    found = {(d.first, d.second): d for d in opinion_differences(made, "OVL")}
    assert found["s0", "s2"].value == pytest.approx(2.0, abs=0.2)
    assert found["s0", "s2"].p_holm < 0.01
    assert found["s0", "s1"].p_holm > 0.05
    assert found["s0", "s2"].p_holm >= found["s0", "s2"].p


def test_systems_are_compared_on_the_prompts_that_both_have() -> None:
    made = [r for r in ratings(lambda r, s, p: float(p)) if r.system == "s0" or r.prompt == "p9"]
    (found,) = opinion_differences(made, "OVL")
    assert found.num_prompts == 1
    assert found.value == 0.0


def test_alpha_agrees_with_the_example_of_its_author() -> None:
    # Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: four observers,
    # twelve units; alpha is 0.815 for ordinal and 0.849 for interval data
    table = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
            [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
        ]
    ).T
    assert krippendorff_alpha(table, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(table, "interval") == pytest.approx(0.849, abs=5e-4)


def test_alpha_is_one_if_all_agree_and_about_zero_if_they_guess() -> None:
    agree = np.repeat(np.arange(10.0)[:, None], 4, axis=1)
    assert krippendorff_alpha(agree) == 1.0
    guess = np.random.default_rng(2).integers(1, 6, (400, 5)).astype(float)
    assert krippendorff_alpha(guess) == pytest.approx(0.0, abs=0.03)
    with pytest.raises(InputError, match="scores that differ"):
        krippendorff_alpha(np.ones((3, 3)))


def test_icc_agrees_with_the_example_of_its_authors() -> None:
    # Shrout & Fleiss 1979, table 2 and table 4: six targets, four judges; 0.29 and 0.62
    table = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
    )
    found = intraclass_correlation(table)
    assert found.single == pytest.approx(0.29, abs=5e-3)
    assert found.average == pytest.approx(0.62, abs=5e-3)
    with_gap = np.vstack([table, [1.0, NAN, 2.0, 3.0]])
    assert intraclass_correlation(with_gap) == found


def test_doubtful_raters_are_named_with_the_reason() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(1, 2, 10))

    def score(rater: int, system: int, prompt: int) -> float:
        value = truth[0, system, prompt]
        return {0: 3.0, 1: -value}.get(rater, value + 0.1 * rater)

    made = ratings(score)
    made = [r.model_copy(update={"ms": 200.0}) if r.rater == "r2" else r for r in made]
    rules = ScreeningRules(probes={"s0-p0": (4.0, 5.0)})
    checks = {check.rater: check for check in screen_raters(made, "OVL", rules)}
    assert "gave 3 to everything" in checks["r0"].doubts
    assert any(doubt.startswith("correlates with the others by -") for doubt in checks["r1"].doubts)
    assert "answers after 200 ms" in checks["r2"].doubts
    assert all(
        any("to the probe s0-p0" in doubt for doubt in check.doubts) for check in checks.values()
    )
    plain = {check.rater: check for check in screen_raters(made, "OVL")}
    assert plain["r3"].doubts == ()
    assert plain["r0"].correlation is None


def test_ratings_come_back_as_they_were_written(tmp_path: Path) -> None:
    made = ratings(lambda r, s, p: 1.0 + (r + s + p) % 5)
    write_ratings(tmp_path / "ratings.csv", made)
    assert read_ratings(tmp_path / "ratings.csv", Scale()) == tuple(made)
    assert rating_matrix(made, "OVL").shape == (20, 8)


def test_tta_bench_s_form_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "all_mos_pro.csv"
    path.write_text(
        "wav_name,person_id,复杂度,喜爱度,质量,一致性,实用性\n"
        "S001_P0001.wav,ruike001,5,6,7,8,9\n"
        "S000_P0001.wav,ruike001,1,1,1,1,1\n",
        encoding="utf-8",
    )
    made = read_tta_ratings(path, Scale(low=1, high=10))
    assert [(r.axis, r.score) for r in made[:5]] == [
        ("complexity", 5.0),
        ("enjoyment", 6.0),
        ("quality", 7.0),
        ("alignment", 8.0),
        ("usefulness", 9.0),
    ]
    assert (made[0].system, made[0].prompt) == ("S001", "prompt_0001")
    assert [score.system for score in opinion_scores(made, "quality")] == ["S001"]
    write_tta_ratings(tmp_path / "again.csv", made)
    assert (tmp_path / "again.csv").read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("r1,c1,s1,p1,OVL,6", "line 3: score 6 is outside of 1 to 5"),
        ("r1,c1,s1,p1,OVL,good", "line 3, score: expected a number, got 'good'"),
        ("r1,c1,s1,p1,OVL,", "line 3: score is empty"),
        ("r0,c0,s0,p0,OVL,4", r"line 3: r0 rated c0 on OVL in .*line 2, too"),
        ("r0,c0", ":3: 2 cells, expected 6"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(f"rater,clip,system,prompt,axis,score\nr0,c0,s0,p0,OVL,3\n{line}\n")
    with pytest.raises(ManifestError, match=complaint):
        read_ratings(path, Scale())


def test_an_axis_that_nobody_rated_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="no rating of REL; there are ratings of OVL"):
        opinion_scores(ratings(lambda r, s, p: 1.0), "REL")
