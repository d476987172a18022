"""Which clips are the same recording, whatever the codec, the rate or the loudness.

A clip becomes 256 bits: is the difference of energy between two neighbouring bands rising or
falling from one sixteenth of the clip to the next? The sign of such a difference survives gain and
lossy codecs. [Haitsma & Kalker 2002, "A Highly Robust Audio Fingerprinting System", sec. 4.2]

Differs from the paper: the sixteenths are stretched to the clip, whose silent ends are cut off, so
that there is one code a clip instead of one every 12 ms. Parts of a recording are therefore not
found in the whole; a manifest's ``group`` is for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt16, UInt64

RATE_HZ = 16_000
WINDOW_SAMPLES, HOP_SAMPLES = 1024, 256
LOWEST_HZ, HIGHEST_HZ = 150.0, 7000.0
NUM_PARTS = 17
"""Parts in time, and bands in frequency; differences of neighbours leave 16 by 16."""
NUM_BITS = (NUM_PARTS - 1) ** 2
FLOOR = 1e-4
"""Energy, relative to the loudest cell, below which differences do not count: 40 dB down."""
BLOCK_FRAMES = 4096
LEAST_FRAMES = 12
MOST_DIFFERENT_BITS = 51
"""A fifth. Of 306 sounds, other recordings differ in 88 bits or more, and 95 in 100 copies in 31
at most (Opus; fewer after Ogg, MP3, another rate or gain): benchmarks/fingerprint.py."""
NUM_KEYS = 32
MOST_NEIGHBOURS = 64
"""Clips compared with each in a bucket; only crowds of equal sounds are larger, and they chain."""


def fingerprint(samples: Float32[np.ndarray, " sample"], rate_hz: int) -> bytes | None:
    """The code of a clip; None for silence and for what is too short to have one."""
    import soxr

    if rate_hz != RATE_HZ:
        samples = soxr.resample(samples, rate_hz, RATE_HZ, quality="MQ")
    energy = band_energy(np.asarray(samples, dtype=np.float32))
    total = energy.sum(axis=1)
    loud = np.flatnonzero(total > FLOOR * total.max(initial=0.0))
    if len(loud) == 0 or loud[-1] - loud[0] + 1 < LEAST_FRAMES:
        return None
    cells = _parts(energy[loud[0] : loud[-1] + 1])
    level = np.log(cells / cells.max() + FLOOR)
    bits = np.diff(np.diff(level, axis=0), axis=1) > 0
    return np.packbits(bits).tobytes()


def band_energy(samples: Float32[np.ndarray, " sample"]) -> Float[np.ndarray, "frame band"]:
    """Energy in 17 bands, equally wide in octaves, every 16 ms."""
    half = WINDOW_SAMPLES // 2
    padded = np.pad(samples, (half, half + HOP_SAMPLES))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    window = np.hanning(WINDOW_SAMPLES).astype(np.float32)
    share = _shares_below(np.geomspace(LOWEST_HZ, HIGHEST_HZ, NUM_PARTS + 1))
    blocks = []
    for start in range(0, len(frames), BLOCK_FRAMES):  # an hour of sound must fit into memory
        spectrum = np.fft.rfft(frames[start : start + BLOCK_FRAMES] * window, axis=1)
        blocks.append(np.diff(np.abs(spectrum) ** 2 @ share, axis=1))
    return np.asarray(np.maximum(np.concatenate(blocks), 0.0))


def _shares_below(edges_hz: Float[np.ndarray, " edge"]) -> Float[np.ndarray, "bin edge"]:
    """How much of each bin of the spectrum lies below each edge, from 0 to 1."""
    width = RATE_HZ / WINDOW_SAMPLES
    lower = (np.arange(WINDOW_SAMPLES // 2 + 1) - 0.5) * width
    return np.asarray(np.clip((edges_hz[None] - lower[:, None]) / width, 0.0, 1.0))


def _parts(energy: Float[np.ndarray, "frame band"]) -> Float[np.ndarray, "part band"]:
    """Energy in equal parts of the time, whose borders may lie within a frame."""
    sums = np.concatenate([np.zeros((1, energy.shape[1])), np.cumsum(energy, axis=0)])
    borders = np.linspace(0, len(energy), NUM_PARTS + 1)
    before = np.minimum(borders.astype(int), len(energy) - 1)
    rest = (borders - before)[:, None]
    parts = np.diff(sums[before] * (1 - rest) + sums[before + 1] * rest, axis=0)
    return np.asarray(np.maximum(parts, 0.0))


def same_sounds(codes: Sequence[bytes], durations_s: Sequence[float]) -> list[list[int]]:
    """Groups of clips that are one recording, each in rising order.

    Clips are compared when they agree in one of 32 random choices of bits, so that the work grows
    with the number of clips and not with its square.

    Args:
        codes: from ``fingerprint``.
        durations_s: of each; those of one recording differ by 0.3 s or 5 % at most.
    """
    words = np.frombuffer(b"".join(codes), dtype=np.uint8).reshape(len(codes), NUM_BITS // 8)
    bits = np.unpackbits(words, axis=1).astype(bool)
    whole, length_s = words.view(np.uint16), np.asarray(durations_s)
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for order, key in _buckets(bits):
        pairs += [order[pair] for pair in _close_pairs(whole[order], length_s[order], key)]
    return _chains(len(codes), np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0))


def _buckets(
    bits: Bool[np.ndarray, "clip bit"],
) -> Iterator[tuple[Int[np.ndarray, " clip"], UInt64[np.ndarray, " clip"]]]:
    """Orders that bring clips together which agree in some bits, and those bits as a number."""
    width = int(np.clip(np.ceil(np.log2(max(len(bits), 1))) - 3, 8, 20))
    rng = np.random.default_rng(0)
    powers = np.uint64(1) << np.arange(width, dtype=np.uint64)
    for _ in range(NUM_KEYS):
        chosen = bits[:, rng.choice(NUM_BITS, width, replace=False)]
        key = (chosen * powers).sum(axis=1, dtype=np.uint64)
        order = np.argsort(key, kind="stable")
        yield order, key[order]


def _close_pairs(
    words: UInt16[np.ndarray, "clip word"],
    length_s: Float[np.ndarray, " clip"],
    key: UInt64[np.ndarray, " clip"],
) -> Iterator[Int[np.ndarray, "pair 2"]]:
    """Pairs within a bucket whose codes and durations are close."""
    ones = np.unpackbits(np.arange(1 << 16, dtype=">u2").view(np.uint8)).reshape(-1, 16).sum(axis=1)
    for step in range(1, min(MOST_NEIGHBOURS, len(key) - 1) + 1):
        one = np.flatnonzero(key[step:] == key[:-step])
        if not len(one):
            return
        two = one + step
        longer = np.maximum(length_s[one], length_s[two])
        close = np.abs(length_s[one] - length_s[two]) <= np.maximum(0.3, 0.05 * longer)
        different = ones[words[one] ^ words[two]].sum(axis=1)
        found = close & (different <= MOST_DIFFERENT_BITS)
        yield np.stack([one[found], two[found]], axis=1)


def _chains(count: int, links: Int[np.ndarray, "pair 2"]) -> list[list[int]]:
    """Sets of what is linked, directly or through others."""
    head = list(range(count))

    def find(index: int) -> int:
        while head[index] != index:
            head[index] = head[head[index]]
            index = head[index]
        return index

    for one, two in links.tolist():
        first, second = sorted((find(one), find(two)))
        head[second] = first
    sets: dict[int, list[int]] = {}
    for index in range(count):
        sets.setdefault(find(index), []).append(index)
    return [members for members in sets.values() if len(members) > 1]
