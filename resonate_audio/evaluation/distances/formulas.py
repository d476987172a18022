"""How far a set of sounds lies from another, by what a network hears in them.

All of it is float64 and knows only arrays: rows of embeddings, or rows of class probabilities.
A value that belongs to a whole set says nothing of one clip, so it has no interval over prompts;
where the set's size alone moves it, as with FAD, the docstring says by how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64

from resonate_audio.core.errors import InputError, ShapeError

KAD_SCALE = 100.0
"""MMD² is printed times this."""
PROBABILITY_FLOOR = 1e-12
"""Probability that a class at least has before its logarithm is taken."""
IS_SPLITS = 10
FAD_SIZES = 12
"""Subset sizes that FAD∞ is extrapolated from."""
FAD_DRAWS = 4
"""Disjoint draws that the distance at a small size is averaged over, at most."""

Form = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of a set."""

    mean: Float64[np.ndarray, " dim"]
    covariance: Float64[np.ndarray, "dim dim"]


@dataclass(frozen=True)
class Extrapolated:
    """A distance at infinitely many clips, from a straight line over 1/N."""

    value: float
    slope: float
    """Bias of the plain distance times the number of clips."""
    r2: float
    """Share of the variance that the line explains; far under 1, do not trust it."""


def fit_gaussian(embeddings: Float[np.ndarray, "row dim"]) -> Gaussian:
    """Mean and covariance (divisor N − 1) of a set.

    Raises:
        InputError: fewer than two rows, or a value that is not finite.
    """
    rows = _check(embeddings, "embeddings", 2)
    covariance = np.atleast_2d(np.cov(rows, rowvar=False))
    return Gaussian(rows.mean(axis=0), covariance.astype(np.float64))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Fréchet distance between two Gaussians.

    d = |μ₁ − μ₂|² + tr C₁ + tr C₂ − 2 Σ sqrt eig(C₁^½ C₂ C₁^½)     [Dowson and Landau 1982]
    Differs from the usual code: C₁^½ C₂ C₁^½ is symmetric, so its eigenvalues are real and there
    is no imaginary part of a matrix root to drop, nor anything to add to the diagonal.

    Raises:
        ShapeError: they are of different dimensions.
    """
    if a.mean.shape != b.mean.shape:
        raise ShapeError(f"sets of dimension {len(a.mean)} and {len(b.mean)}: expected the same")
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ b.covariance @ root)
    overlap = np.sqrt(inner.clip(min=0)).sum()
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    distance = np.square(a.mean - b.mean).sum() + traces - 2 * overlap
    return max(0.0, float(distance))


def frechet_audio_distance(
    reference: Float[np.ndarray, "row dim"], generated: Float[np.ndarray, "row2 dim"]
) -> float:
    """FAD: Fréchet distance between the Gaussians of two sets.

    [Fréchet Audio Distance, arXiv:1812.08466]
    It is too large by about slope/N (see `unbiased_fad`), so compare sets of one size only.

    Raises:
        InputError: a set has fewer than two rows, or a value that is not finite.
    """
    return frechet_distance(fit_gaussian(reference), fit_gaussian(generated))


def unbiased_fad(
    reference: Float[np.ndarray, "row dim"],
    generated: Float[np.ndarray, "row2 dim"],
    seed: int = 0,
) -> Extrapolated:
    """FAD∞: the distance at infinitely many generated clips.

    FAD(N) ≈ FAD∞ + slope / N, fitted by least squares over `FAD_SIZES` sizes whose 1/N are
    equally spaced from a quarter of the set to the whole set   [arXiv:1911.07023, sec. 3;
    for audio arXiv:2311.01616]
    Differs from the usual code: subsets are drawn without replacement. With replacement, a subset
    of N holds fewer than N different clips and the line is too steep: where the truth was 3.90,
    that gave 7.4 to 8.0 and this gives 3.7 to 4.2. The reference set is taken as the truth; its
    own finite size is not corrected for. The line holds while a quarter of the set is well above
    the dimension of the embeddings.

    Args:
        reference: real sounds.
        generated: what is measured; the order does not matter.
        seed: of the draws.

    Raises:
        InputError: fewer than 16 generated rows, or a value that is not finite.
    """
    rows, target = _check(generated, "generated embeddings", 16), fit_gaussian(reference)
    generator = np.random.default_rng(seed)
    rows = rows[np.lexsort(rows.T[::-1])]
    inverse = np.linspace(4 / len(rows), 1 / len(rows), FAD_SIZES)
    sizes = np.unique(np.round(1 / inverse).astype(int))
    found = np.array([_mean_distance(target, rows, int(size), generator) for size in sizes])
    slope, value = np.polyfit(1 / sizes, found, 1)
    residual = np.square(found - (value + slope / sizes)).sum()
    spread = np.square(found - np.mean(found)).sum()
    r2 = 1.0 if spread == 0 else 1 - residual / spread
    return Extrapolated(float(value), float(slope), float(r2))


def _mean_distance(
    target: Gaussian,
    rows: Float64[np.ndarray, "row dim"],
    size: int,
    generator: np.random.Generator,
) -> float:
    """Mean over as many disjoint subsets as there are, at most `FAD_DRAWS`."""
    order = generator.permutation(len(rows))
    parts = [order[i * size : (i + 1) * size] for i in range(min(FAD_DRAWS, len(rows) // size))]
    return float(np.mean([frechet_distance(target, fit_gaussian(rows[part])) for part in parts]))


def median_distance(rows: Float[np.ndarray, "row dim"]) -> float:
    """Median Euclidean distance between two different rows.

    Raises:
        InputError: fewer than two rows, or a value that is not finite.
    """
    checked = _check(rows, "embeddings", 2)
    upper = np.triu_indices(len(checked), 1)
    return float(np.sqrt(np.median(_squared_distances(checked, checked)[upper])))


def kernel_audio_distance(
    reference: Float[np.ndarray, "row dim"],
    generated: Float[np.ndarray, "row2 dim"],
    bandwidth: float | None = None,
) -> float:
    """KAD: unbiased squared maximum mean discrepancy, times 100.

    MMD² = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2 mean_{ij} k(x_i, y_j),
    k(x, y) = exp(−|x − y|² / 2h²), h the median distance within the reference
    [Gretton et al. 2012, eq. 3; KAD, arXiv:2502.15602]
    Its expectation is 0 for two sets of one distribution at any size, so it may be negative; the
    two sets cannot be swapped, since h comes from the reference.

    Args:
        reference: real sounds.
        generated: what is measured.
        bandwidth: h; the median distance of the reference if None.

    Raises:
        InputError: a set has fewer than two rows, a value is not finite, or h is 0.
    """
    x, y = _check(reference, "reference", 2), _check(generated, "generated embeddings", 2)
    width = median_distance(x) if bandwidth is None else bandwidth
    if width <= 0:
        raise InputError(f"KAD with a bandwidth of {width}: more than half of the reference is one")

    def kernel(
        a: Float64[np.ndarray, "row dim"], b: Float64[np.ndarray, "row2 dim"]
    ) -> Float64[np.ndarray, "row row2"]:
        return np.asarray(np.exp(-_squared_distances(a, b) / (2 * width**2)))

    within = [
        (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(x, x), kernel(y, y))
    ]
    return KAD_SCALE * float(within[0] + within[1] - 2 * kernel(x, y).mean())


def softmax(logits: Float[np.ndarray, "row class"]) -> Float64[np.ndarray, "row class"]:
    """Probabilities of classes of which one is heard."""
    shifted = logits.astype(np.float64)
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def sigmoid(logits: Float[np.ndarray, "row class"]) -> Float64[np.ndarray, "row class"]:
    """Probabilities of classes that are each heard or not."""
    half = logits.astype(np.float64) / 2  # (1 + tanh(x/2))/2: nothing overflows
    return np.asarray((1 + np.tanh(half)) / 2)


def paired_kl(
    reference: Float[np.ndarray, "row class"],
    generated: Float[np.ndarray, "row2 class2"],
    form: Form = "softmax",
) -> Float64[np.ndarray, " row"]:
    """What a classifier hears in each clip, against what it hears in its own reference.

    KL = Σ_c p_c log(p_c / q_c), p of the reference, q of the generated clip
    In the sigmoid form p and q do not sum to one over the classes; that is how audio papers print
    it ("KL-sigmoid"), and it may be negative.

    Args:
        reference: logits of the real clips.
        generated: logits of the clips for the same prompts, in the same order.
        form: how logits become probabilities.

    Returns:
        One number a pair, in nats.

    Raises:
        ShapeError: there is not one generated clip for each reference.
        InputError: a value is not finite.
    """
    if reference.shape != generated.shape:
        raise ShapeError(f"KL of pairs: logits {reference.shape} and {generated.shape} differ")
    to_probability = softmax if form == "softmax" else sigmoid
    p = to_probability(_check(reference, "reference logits", 1))
    q = to_probability(_check(generated, "generated logits", 1))
    return divergence(p, q)


def divergence(
    p: Float[np.ndarray, "*row class"], q: Float[np.ndarray, "*row class"]
) -> Float64[np.ndarray, "*row"]:
    """Σ_c p_c log(p_c / q_c) in nats, with 0 log 0 = 0 and q not under `PROBABILITY_FLOOR`."""
    ratio = np.log(p.clip(min=PROBABILITY_FLOOR)) - np.log(q.clip(min=PROBABILITY_FLOOR))
    return np.asarray((p * ratio).sum(axis=-1), dtype=np.float64)


def inception_score(
    probabilities: Float[np.ndarray, "row class"], splits: int = IS_SPLITS, seed: int = 0
) -> tuple[float, float]:
    """IS: how sure a classifier is of each clip, and of how many things in all.

    IS = exp mean_x KL(p(y|x) ‖ mean_x p(y|x))                        [arXiv:1606.03498, sec. 4]
    From 1, where all clips are heard alike, to the number of classes.

    Args:
        probabilities: of the classes, each row summing to one.
        splits: parts that the score is computed in.
        seed: of the shuffle before the split; clips often come sorted by kind.

    Returns:
        Mean over the parts, and their standard deviation (divisor: their number).

    Raises:
        InputError: fewer rows than parts, or a row that does not sum to one.
    """
    rows = _check(probabilities, "probabilities", splits)
    if not np.allclose(rows.sum(axis=1), 1, atol=1e-4):
        raise InputError("IS: a row of probabilities does not sum to one; give softmax(logits)")
    shuffled = rows[np.random.default_rng(seed).permutation(len(rows))]
    scores = [
        np.exp(divergence(part, np.broadcast_to(part.mean(axis=0), part.shape)).mean())
        for part in np.array_split(shuffled, splits)
    ]
    return float(np.mean(scores)), float(np.std(scores))


def _squared_distances(
    a: Float64[np.ndarray, "row dim"], b: Float64[np.ndarray, "row2 dim"]
) -> Float64[np.ndarray, "row row2"]:
    centre = a.mean(axis=0)  # the products below cancel less around the origin
    a, b = a - centre, b - centre
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * (a @ b.T)
    return np.asarray(squares.clip(min=0))


def _check(
    values: Float[np.ndarray, "row dim"], what: str, fewest: int
) -> Float64[np.ndarray, "row dim"]:
    if len(values) < fewest:
        raise InputError(f"{what}: {len(values)} rows, expected at least {fewest}")
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise InputError(f"{what}: row {broken[0] + 1} holds NaN or infinite values")
    return values.astype(np.float64)
