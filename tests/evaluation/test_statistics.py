from __future__ import annotations

import time

import numpy as np
import pytest
import scipy.stats
from made_scores import system

from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.evaluation.statistics import (
    StatisticsConfig,
    bootstrap_mean,
    bootstrap_weights,
    collect_takes,
    holm,
    interval,
    metric_mean,
    paired_difference,
    ratio_of_means,
    sign_flip_p,
    wilson_interval,
)

MANY = StatisticsConfig(num_resamples=20_000)


def normal(seed: int, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(seed).standard_normal(shape)


def test_equal_values_have_an_interval_of_no_width() -> None:
    estimate = bootstrap_mean(np.full(7, 2.5), (1,) * 7)
    assert estimate.low == pytest.approx(2.5)
    assert estimate.high == pytest.approx(2.5)


def test_the_interval_of_many_prompts_is_that_of_a_normal_mean() -> None:
    values = normal(0, 400)
    half = 1.96 * values.std() / np.sqrt(400)
    estimate = bootstrap_mean(values, (1,) * 400, MANY)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.01)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.01)


def test_the_interval_agrees_with_scipy() -> None:
    values = np.exp(normal(1, 200))
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    estimate = bootstrap_mean(values, (1,) * 200, MANY)
    assert estimate.low == pytest.approx(theirs.low, rel=0.02)
    assert estimate.high == pytest.approx(theirs.high, rel=0.02)


def test_a_prompt_counts_once_however_many_takes_it_has() -> None:
    scores = system("a", {"1": [0.0, 0.0, 0.0], "2": [1.0]})
    assert metric_mean(scores, "clap").value == 0.5


def test_copies_of_a_take_do_not_make_a_mean_surer() -> None:
    values = normal(2, 100)
    once = bootstrap_mean(values, (1,) * 100, MANY)
    thrice = bootstrap_mean(values.repeat(3), (3,) * 100, MANY)
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.05)


def test_takes_that_differ_widen_the_interval_by_their_variance() -> None:
    """Var = (variance of prompt means + mean variance within / takes) / prompts."""
    values = normal(3, 300, 4)
    between, within = values.mean(axis=1).var(), values.var(axis=1).mean()
    expected = np.sqrt((between + within / 4) / 300)
    draws = bootstrap_weights((4,) * 300, MANY) @ values.ravel()
    assert draws.std() == pytest.approx(expected, rel=0.03)


def test_the_weights_of_a_draw_sum_to_one() -> None:
    weights = bootstrap_weights((1, 3, 2), StatisticsConfig(num_resamples=100))
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_takes_of_a_drawn_prompt_share_its_weight() -> None:
    takes = (1, 3, 2)
    weights = bootstrap_weights(takes, StatisticsConfig(num_resamples=200))
    shares = np.add.reduceat(weights, [0, 1, 4], axis=1) * len(takes)
    np.testing.assert_allclose(shares, shares.round(), atol=1e-12)


def test_the_order_of_the_clips_changes_nothing() -> None:
    values = dict(zip("abcdefgh", normal(4, 8).tolist(), strict=True))
    turned = dict(reversed(values.items()))
    assert metric_mean(system("a", values), "clap") == metric_mean(system("a", turned), "clap")


def test_another_seed_draws_other_prompts() -> None:
    values = normal(5, 50)
    other = bootstrap_mean(values, (1,) * 50, StatisticsConfig(seed=1))
    assert other != bootstrap_mean(values, (1,) * 50)


def test_a_failed_clip_counts_with_the_worst_value_and_is_named() -> None:
    scores = system("a", {"1": 1.0, "2": 1.0}, worst=-1.0, failures={"2": "silent"})
    mean = metric_mean(scores, "clap")
    assert (mean.value, mean.num_clips) == (0.0, 2)
    assert mean.failed == ("2, seed 0 (silent)",)
    assert mean.left_out == ()


def test_a_failed_clip_without_a_worst_value_is_left_out_and_named() -> None:
    mean = metric_mean(system("a", {"1": 1.0, "2": 3.0}, failures={"2": "missing"}), "clap")
    assert (mean.value, mean.num_clips) == (1.0, 1)
    assert mean.left_out == ("2, seed 0 (missing)",)


def test_a_clip_that_was_not_scored_is_named() -> None:
    mean = metric_mean(system("a", {"1": 1.0, "2": None}), "clap")
    assert mean.left_out == ("2, seed 0",)


def test_a_mean_of_nothing_is_an_error() -> None:
    scores = system("a", {"1": 1.0}, failures={"1": "missing"})
    with pytest.raises(ManifestError, match="none of 1 clips has a value for clap"):
        metric_mean(scores, "clap")


def test_some_prompts_can_be_chosen() -> None:
    scores = system("a", {"1": 1.0, "2": 3.0, "3": 5.0})
    assert metric_mean(scores, "clap", ids={"1", "2"}).value == 2.0
    assert collect_takes(scores, "clap", {"3"}).ids == ("3",)


def test_a_paired_difference_is_the_second_minus_the_first() -> None:
    first, second = system("a", {"1": 1.0, "2": 2.0}), system("b", {"1": 2.0, "2": 5.0})
    change = paired_difference(first, second, "clap")
    assert change.value == 2.0
    assert (change.low, change.high) == (1.0, 3.0)


def test_what_both_systems_share_does_not_widen_a_paired_interval() -> None:
    common = (10 * normal(6, 60)).tolist()
    first = system("a", {f"{index:02}": value for index, value in enumerate(common)})
    second = system("b", {f"{index:02}": value + 1 for index, value in enumerate(common)})
    change = paired_difference(first, second, "clap")
    assert change.low == pytest.approx(1)
    assert change.high == pytest.approx(1)


def test_a_clip_that_one_system_lacks_is_an_error_that_names_it() -> None:
    first, second = system("a", {"1": 1.0}), system("b", {"1": 1.0, "2": 2.0})
    with pytest.raises(ManifestError, match="a: has no clip of prompt 2, seed 0, which b has"):
        paired_difference(first, second, "clap")
    with pytest.raises(ManifestError, match="a: has no clip of prompt 2"):
        paired_difference(second, first, "clap")


def test_a_pair_without_two_values_is_left_out_and_named() -> None:
    first = system("a", {"1": 1.0, "2": 1.0}, failures={"1": "silent"})
    change = paired_difference(first, system("b", {"1": 9.0, "2": 2.0}), "clap")
    assert (change.value, change.num_clips) == (1.0, 1)
    assert change.left_out == ("1, seed 0 (silent)",)


def test_a_failure_of_either_side_is_named_when_it_counts() -> None:
    first = system("a", {"1": 1.0, "2": 1.0}, worst=0.0)
    second = system("b", {"1": 1.0, "2": 1.0}, worst=0.0, failures={"1": "unreadable"})
    change = paired_difference(first, second, "clap")
    assert change.value == -0.5
    assert change.failed == ("1, seed 0 (unreadable)",)


def test_sign_flips_of_a_few_equal_differences_are_two_of_all_patterns() -> None:
    for number in (1, 5, 12):
        assert sign_flip_p(np.ones(number)) == 2 / 2**number


def test_sign_flips_agree_with_scipy_where_all_are_tried() -> None:
    for seed in range(5):
        changes = normal(seed, 9) + 0.4
        theirs = scipy.stats.permutation_test(
            (changes,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert sign_flip_p(changes) == pytest.approx(theirs.pvalue)


def test_drawn_sign_flips_agree_with_a_t_test_of_normal_differences() -> None:
    changes = normal(7, 200) + 0.12
    theirs = scipy.stats.ttest_1samp(changes, 0).pvalue
    assert sign_flip_p(changes) == pytest.approx(theirs, abs=0.01)


def test_a_drawn_p_is_never_zero() -> None:
    assert sign_flip_p(np.ones(100), StatisticsConfig(num_flips=500)) == 1 / 501


def test_no_difference_at_all_has_a_p_of_one() -> None:
    assert sign_flip_p(np.zeros(5)) == 1
    assert sign_flip_p(np.zeros(50)) == 1


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_holm_of_one_changes_nothing_and_of_none_is_none() -> None:
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_never_passes_one_nor_the_uncorrected_order() -> None:
    p_values = np.random.default_rng(0).random(20)
    corrected = np.array(holm(p_values.tolist()))
    assert corrected.max() <= 1
    assert (np.diff(corrected[np.argsort(p_values)]) >= 0).all()
    assert (corrected >= p_values).all()


def test_a_ratio_of_proportional_columns_is_certain() -> None:
    below = np.array([1.0, 2.0, 7.0])
    ratio = ratio_of_means(0.9 * below, below)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.9, 0.9, 0.9))


def test_a_ratio_with_nothing_below_the_line_is_an_error() -> None:
    with pytest.raises(InputError, match="positive mean below the line, got -1"):
        ratio_of_means(np.array([1.0]), np.array([-1.0]))


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (3, 10), (10, 10), (50, 300)])
def test_wilson_agrees_with_scipy(hits: int, total: int) -> None:
    theirs = scipy.stats.binomtest(hits, total).proportion_ci(method="wilson")
    ours = wilson_interval(float(hits), total)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_a_share_of_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="got 0 of 0"):
        wilson_interval(0.0, 0)


def test_an_interval_without_one_defined_draw_is_an_error() -> None:
    with pytest.raises(InputError, match="no bootstrap draw gives a number"):
        interval(1.0, np.full(5, np.nan))


def test_forty_means_of_1500_prompts_take_under_two_seconds() -> None:
    values = normal(8, 40, 1500)
    bootstrap_weights.cache_clear()
    start = time.process_time()
    for row in values:
        bootstrap_mean(row, (1,) * 1500)
    assert time.process_time() - start < 2
