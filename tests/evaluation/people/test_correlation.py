"""Coefficients agree with scipy's, intervals with what is drawn, ceilings with theory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.evaluation.people.correlation import (
    JudgedClips,
    correlate,
    kendall,
    noise_ceiling,
    pearson,
    spearman,
)
from resonate_audio.evaluation.people.rated_clips import (
    join,
    rating_table,
    read_rated_clips,
    read_values,
    values_of,
)
from resonate_audio.evaluation.statistics import StatisticsConfig
from tests.evaluation.made_scores import system

PAM = Path(__file__).parents[4] / "shared" / "data" / "pam" / "aes_pam.jsonl"
needs_pam = pytest.mark.skipif(not PAM.is_file(), reason=f"needs PAM's ratings in {PAM}")


def made(num_prompts: int = 30, num_systems: int = 4, noise: float = 1.0) -> JudgedClips:
    rng = np.random.default_rng(0)
    human = rng.normal(size=num_prompts * num_systems)
    return JudgedClips(
        human,
        human + noise * rng.normal(size=len(human)),
        tuple(f"p{n // num_systems}" for n in range(len(human))),
        tuple(f"s{n % num_systems}" for n in range(len(human))),
    )


@pytest.mark.parametrize("levels", [None, 4], ids=["no ties", "ties"])
def test_coefficients_agree_with_scipy(levels: int | None) -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(size=101)
    second = first + rng.normal(size=101)
    if levels:
        first, second = (np.floor(levels * stats.norm.cdf(side)) for side in (first, second))
    assert pearson(first, second) == pytest.approx(stats.pearsonr(first, second).statistic)
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second).statistic)


def test_a_side_that_does_not_vary_is_undefined_and_never_zero() -> None:
    flat = JudgedClips(np.ones(4), np.arange(4.0), ("a", "b", "c", "d"), ("s",) * 4)
    pooled = correlate(flat).pooled
    assert (pooled.lcc, pooled.srcc, pooled.ktau) == (None, None, None)


def test_a_metric_that_is_what_people_say_is_right_about_everything() -> None:
    clips = made(noise=0.0)
    found = correlate(clips)
    assert found.pooled.lcc is not None
    assert found.pooled.lcc.value == pytest.approx(1.0)
    assert found.within_prompt.srcc is not None
    assert found.within_prompt.srcc.value == pytest.approx(1.0)
    assert found.within_prompt.pairs is not None
    assert found.within_prompt.pairs.value == 1.0
    assert found.within_prompt.pairs.num_pairs == 30 * 6


def test_what_prompts_have_in_common_does_not_count_within_them() -> None:
    rng = np.random.default_rng(2)
    level = np.repeat(10 * rng.normal(size=40), 3)
    clips = JudgedClips(
        level + rng.normal(size=120),
        level + rng.normal(size=120),
        tuple(f"p{n // 3}" for n in range(120)),
        tuple(f"s{n % 3}" for n in range(120)),
    )
    found = correlate(clips)
    assert found.pooled.lcc is not None
    assert found.pooled.lcc.value > 0.95
    assert found.within_prompt.lcc is not None
    assert abs(found.within_prompt.lcc.value) < 0.35


def test_intervals_are_those_of_drawing_whole_prompts() -> None:
    clips = made()
    config = StatisticsConfig(num_resamples=400)
    found = correlate(clips, config).pooled
    rng = np.random.default_rng(5)
    rows = np.arange(120).reshape(30, 4)
    drawn = []
    for _ in range(400):
        own = rows[rng.integers(0, 30, 30)].ravel()
        pair = clips.human[own], clips.metric[own]
        drawn.append(
            [stats.pearsonr(*pair)[0], stats.spearmanr(*pair)[0], stats.kendalltau(*pair)[0]]
        )
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    for index, estimate in enumerate((found.lcc, found.srcc, found.ktau)):
        assert estimate is not None
        assert estimate.low == pytest.approx(low[index], abs=0.03)
        assert estimate.high == pytest.approx(high[index], abs=0.03)


def test_systems_are_correlated_on_their_own() -> None:
    clips = made()
    found = correlate(clips).per_system
    assert sorted(found) == ["s0", "s1", "s2", "s3"]
    own = [n for n in range(120) if n % 4 == 2]
    expected = stats.pearsonr(clips.human[own], clips.metric[own]).statistic
    assert found["s2"].lcc is not None
    assert found["s2"].lcc.value == pytest.approx(expected)


def test_the_ceiling_is_the_root_of_the_reliability() -> None:
    # true scores of variance 1, ten ratings with noise of variance 4: reliability 1 / (1 + 0.4)
    rng = np.random.default_rng(3)
    truth = rng.normal(size=4000)
    ratings = truth[:, None] + 2 * rng.normal(size=(4000, 10))
    found = noise_ceiling(ratings, num_splits=50)
    assert found.lcc.reliability == pytest.approx(1 / 1.4, abs=0.02)
    assert found.lcc.ceiling == pytest.approx((1 / 1.4) ** 0.5, abs=0.01)
    assert np.corrcoef(truth, ratings.mean(axis=1))[0, 1] == pytest.approx(
        found.lcc.ceiling, abs=0.02
    )


def test_a_ceiling_needs_two_ratings_of_each_clip() -> None:
    with pytest.raises(InputError, match="two ratings"):
        noise_ceiling(np.array([[1.0, np.nan], [1.0, 2.0]]))


def test_both_forms_of_ratings_are_read_and_joined_by_system_and_name(tmp_path: Path) -> None:
    ratings = tmp_path / "scores.csv"
    ratings.write_text(
        "Model,File Name,OVL,REL,Text\n"
        "audiogen,clip_1.wav,3.5,4,a dog barks\n"
        "audiogen,clip_2,2.5,2,rain\n"
        "real,clip_1,4.5,5,a dog barks\n"
    )
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(
        "file,clap\n/x/audiogen/clip_1.wav,0.4\n/x/audiogen/clip_2.wav,0.1\n/x/real/clip_1.wav,0.5\n"
        "/x/real/clip_9.wav,0.5\n"
    )
    clips, joined = join(read_rated_clips(ratings), read_values(metrics), "REL", "clap")
    assert clips.human.tolist() == [4.0, 2.0, 5.0]
    assert clips.metric.tolist() == [0.4, 0.1, 0.5]
    assert clips.prompts == ("a dog barks", "rain", "a dog barks")
    assert joined.unrated == 1


def test_a_clip_that_was_not_scored_or_stands_twice_is_named(tmp_path: Path) -> None:
    ratings = tmp_path / "scores.csv"
    ratings.write_text("Model,File Name,REL\na,1,3\na,2,4\n")
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("file,clap\na/1.wav,0.4\n")
    with pytest.raises(ManifestError, match=r"a/2: rated, but clap has no value.*\(1 such of 2\)"):
        join(read_rated_clips(ratings), read_values(metrics), "REL", "clap")
    ratings.write_text("Model,File Name,REL\na,1,3\na,1.wav,4\n")
    with pytest.raises(ManifestError, match=r"line 3: a/1 stands in .*line 2"):
        read_rated_clips(ratings)
    ratings.write_text("Model,File Name,REL\na,1,three\n")
    with pytest.raises(ManifestError, match="line 2, REL: expected a number, got 'three'"):
        read_rated_clips(ratings)


def test_values_come_from_scored_systems_too() -> None:
    scores = system("audiogen", {"0001": 0.3, "0002": None}, failures={"0002": "silent"}, worst=-1)
    assert values_of(scores) == {
        "audiogen/0001_0": {"clap": 0.3},
        "audiogen/0002_0": {"clap": -1.0},
    }


@needs_pam
def test_pam_s_ceilings_are_where_they_were_found_before() -> None:
    rated = read_rated_clips(PAM)
    assert len(rated) == 500
    table = rating_table(rated, "Production_Quality")
    assert table is not None
    assert table.shape == (500, 10)
    found = noise_ceiling(table)
    assert 0.42 <= found.srcc.split_half <= 0.53
    assert 0.77 <= found.srcc.ceiling <= 0.83


@needs_pam
def test_an_axis_of_pam_correlates_with_another_as_scipy_says() -> None:
    rated = read_rated_clips(PAM)
    quality = {clip.key: {"pq": clip.means["Production_Quality"]} for clip in rated}
    clips, joined = join(rated, quality, "Content_Usefulness", "pq")
    pooled = correlate(clips, StatisticsConfig(num_resamples=200)).pooled
    assert joined.left_out == ()
    usefulness = [clip.means["Content_Usefulness"] for clip in rated]
    pq = [clip.means["Production_Quality"] for clip in rated]
    assert pooled.ktau is not None
    assert pooled.ktau.value == pytest.approx(stats.kendalltau(usefulness, pq).statistic)
