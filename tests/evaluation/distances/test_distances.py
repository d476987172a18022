from __future__ import annotations

import math

import numpy as np
import pytest

from resonate_audio.core.errors import InputError, ShapeError
from resonate_audio.evaluation.distances.formulas import (
    Gaussian,
    fit_gaussian,
    frechet_audio_distance,
    frechet_distance,
    inception_score,
    kernel_audio_distance,
    median_distance,
    paired_kl,
    sigmoid,
    softmax,
    unbiased_fad,
)


def draw(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dim))


def test_two_gaussians_on_the_same_axes_are_as_far_apart_as_their_roots() -> None:
    a = Gaussian(np.array([0.0, 0.0]), np.diag([1.0, 4.0]))
    b = Gaussian(np.array([3.0, 4.0]), np.diag([9.0, 16.0]))
    # |μ|² = 25, and (1 − 3)² + (2 − 4)² = 8 from the standard deviations
    assert frechet_distance(a, b) == pytest.approx(33.0)


def test_a_set_is_at_no_distance_from_itself() -> None:
    rows = draw(50, 8)
    assert frechet_audio_distance(rows, rows) == pytest.approx(0.0, abs=1e-9)


def test_a_shift_alone_counts_with_its_square() -> None:
    rows = draw(60, 5)
    assert frechet_audio_distance(rows, rows + 2.0) == pytest.approx(5 * 4.0)


def test_turning_both_sets_changes_nothing() -> None:
    turn, _ = np.linalg.qr(draw(6, 6, 9))
    a, b = draw(40, 6, 1), 2 * draw(70, 6, 2) + 1
    assert frechet_audio_distance(a @ turn, b @ turn) == pytest.approx(frechet_audio_distance(a, b))


@pytest.mark.parametrize("rows", [200, 10], ids=["full rank", "fewer rows than dimensions"])
def test_it_agrees_with_the_matrix_root_of_scipy(rows: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a = fit_gaussian(draw(rows, 16, 1) @ draw(16, 16, 2))
    b = fit_gaussian(draw(300, 16, 3) @ draw(16, 16, 4) + 0.5)
    root = linalg.sqrtm(b.covariance @ a.covariance)
    expected = (
        np.square(a.mean - b.mean).sum()
        + np.trace(a.covariance + b.covariance)
        - 2 * np.trace(np.real(root))
    )
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-5)


def test_sets_of_different_dimension_are_refused() -> None:
    with pytest.raises(ShapeError, match="dimension 3 and 4"):
        frechet_distance(fit_gaussian(draw(9, 3)), fit_gaussian(draw(9, 4)))


def test_one_clip_has_no_covariance() -> None:
    with pytest.raises(InputError, match="1 rows, expected at least 2"):
        fit_gaussian(draw(1, 3))


def test_a_broken_embedding_is_named() -> None:
    rows = draw(9, 3)
    rows[4, 1] = np.nan
    with pytest.raises(InputError, match="row 5 holds NaN"):
        frechet_audio_distance(draw(9, 3), rows)


class TestUnbiased:
    """Two Gaussians of 32 dimensions, 0.5 apart in each: the truth is 32 · 0.25 = 8."""

    reference = draw(20_000, 32, 1)

    def test_it_finds_the_distance_that_the_plain_one_overshoots(self) -> None:
        plain, without = [], []
        for seed in range(4):
            generated = draw(400, 32, 10 + seed) + 0.5
            plain.append(frechet_audio_distance(self.reference, generated))
            without.append(unbiased_fad(self.reference, generated).value)
        assert np.mean(plain) - 8 > 0.3
        assert abs(np.mean(without) - 8) < 0.2

    def test_the_order_of_the_clips_does_not_matter(self) -> None:
        generated = draw(100, 4) + 0.5
        backwards = unbiased_fad(self.reference[:500, :4], generated[::-1].copy())
        assert unbiased_fad(self.reference[:500, :4], generated) == backwards

    def test_the_plain_distance_falls_along_the_line(self) -> None:
        found = unbiased_fad(self.reference, draw(800, 32, 3) + 0.5)
        assert found.slope > 0
        assert found.r2 > 0.8

    def test_a_handful_of_clips_is_refused(self) -> None:
        with pytest.raises(InputError, match="expected at least 16"):
            unbiased_fad(self.reference[:99], draw(15, 32))


class TestKernel:
    def test_two_points_each_are_worked_out_by_hand(self) -> None:
        x, y = np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])
        k = [math.exp(-(d**2) / 8) for d in (2, 4, 1, 5, 1, 3)]  # h = median distance = 2
        expected = k[0] + k[1] - 2 * (k[2] + k[3] + k[4] + k[5]) / 4
        assert kernel_audio_distance(x, y) == pytest.approx(100 * expected)

    def test_its_mean_over_sets_of_one_distribution_is_nothing(self) -> None:
        found = [
            kernel_audio_distance(draw(40, 3, seed), draw(30, 3, seed + 500)) for seed in range(200)
        ]
        error = np.std(found) / math.sqrt(len(found))
        assert abs(np.mean(found)) < 3 * error
        assert min(found) < 0

    def test_the_bandwidth_comes_from_the_reference(self) -> None:
        x, y = draw(30, 3), 5 * draw(30, 3, 1)
        assert kernel_audio_distance(x, y) == kernel_audio_distance(x, y, median_distance(x))
        assert kernel_audio_distance(x, y) != kernel_audio_distance(y, x)

    def test_it_grows_as_sets_part(self) -> None:
        x, y = draw(80, 4), draw(80, 4, 1)
        found = [kernel_audio_distance(x, y + shift) for shift in (0.0, 0.5, 1.0, 2.0)]
        assert found == sorted(found)

    def test_a_reference_of_equal_sounds_is_refused(self) -> None:
        with pytest.raises(InputError, match="bandwidth of 0"):
            kernel_audio_distance(np.ones((5, 2)), draw(5, 2))

    def test_the_median_distance_of_three_points_is_the_middle_one(self) -> None:
        assert median_distance(np.array([[0.0], [1.0], [5.0]])) == pytest.approx(4.0)


class TestClasses:
    def test_kl_of_two_known_coins(self) -> None:
        p, q = np.log(np.array([[0.5, 0.5]])), np.log(np.array([[0.25, 0.75]]))
        expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
        assert paired_kl(p, q)[0] == pytest.approx(expected)

    def test_kl_is_taken_from_the_references_side(self) -> None:
        p, q = np.log(np.array([[0.9, 0.1]])), np.log(np.array([[0.5, 0.5]]))
        forwards = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
        assert paired_kl(p, q)[0] == pytest.approx(forwards)
        assert paired_kl(q, p)[0] != pytest.approx(forwards)

    def test_kl_of_sigmoids_sums_over_classes_one_by_one(self) -> None:
        p, q = np.array([[0.0, 0.0]]), np.log(np.array([[1.0, 1 / 3]]))  # ½ ½ and ½ ¼
        assert paired_kl(p, q, "sigmoid")[0] == pytest.approx(0.5 * math.log(2))

    def test_kl_of_equal_sounds_is_nothing_in_both_forms(self) -> None:
        logits = 30 * draw(4, 9)
        assert not paired_kl(logits, logits).any()
        assert not paired_kl(logits, logits, "sigmoid").any()

    def test_pairs_must_be_pairs(self) -> None:
        with pytest.raises(ShapeError, match="differ"):
            paired_kl(draw(3, 5), draw(4, 5))

    def test_probabilities_of_huge_logits_stay_finite(self) -> None:
        logits = np.array([[1e4, -1e4]])
        np.testing.assert_allclose(softmax(logits), [[1, 0]])
        np.testing.assert_allclose(sigmoid(logits), [[1, 0]])

    def test_probabilities_agree_with_scipy(self) -> None:
        special = pytest.importorskip("scipy.special")
        logits = 5 * draw(6, 11)
        np.testing.assert_allclose(softmax(logits), special.softmax(logits, axis=1))
        np.testing.assert_allclose(sigmoid(logits), special.expit(logits))


class TestInception:
    def test_clips_that_all_sound_alike_score_one(self) -> None:
        assert inception_score(np.full((40, 8), 1 / 8), 4) == pytest.approx((1.0, 0.0))

    def test_sure_clips_of_k_kinds_score_k(self) -> None:
        rows = np.tile(np.eye(5), (8, 1))
        assert inception_score(rows, 1)[0] == pytest.approx(5.0)

    def test_sorted_clips_are_shuffled_before_the_split(self) -> None:
        rows = np.repeat(np.eye(4), 100, axis=0)
        mean, spread = inception_score(rows, 4)
        assert mean > 3.9
        assert 0 < spread < 0.1

    def test_the_seed_decides(self) -> None:
        rows = softmax(3 * draw(60, 7))
        assert inception_score(rows, seed=1) == inception_score(rows, seed=1)
        assert inception_score(rows, seed=1) != inception_score(rows, seed=2)

    def test_logits_are_refused(self) -> None:
        with pytest.raises(InputError, match="does not sum to one"):
            inception_score(draw(20, 4))

    def test_fewer_clips_than_parts_are_refused(self) -> None:
        with pytest.raises(InputError, match="9 rows, expected at least 10"):
            inception_score(np.full((9, 2), 0.5))
