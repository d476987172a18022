"""Random inputs until time is up: each by its own seed, so that a fault can be made again.

``RESONATE_FUZZ_SECONDS`` is the time of each area (2 s in an ordinary run), ``RESONATE_FUZZ_SEED``
the first seed, and ``RESONATE_FUZZ_REPORT`` a file that gets a line an area; `scripts/fuzz` sets
them.
"""

import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from reader_tables import Member, try_reading

SECONDS = float(os.environ.get("RESONATE_FUZZ_SECONDS", "2"))
FIRST_SEED = int(os.environ.get("RESONATE_FUZZ_SEED", "0"))
REPORT = os.environ.get("RESONATE_FUZZ_REPORT")
LEAST = 20
"""Inputs that are tried on the slowest machine."""
PATIENCE_S = 10.0
ROOM_MB = 1_024

Make = Callable[[np.random.Generator], bytes]


def fuzz(area: str, members: Sequence[Member], make: Make, folder: Path) -> int:
    """Give random inputs to readers in turn; any error but ours, and any greed, is a fault.

    Returns:
        How many inputs were tried.
    """
    for member in members:  # imports are no part of the time
        (folder / member.file).write_bytes(b"")
        try_reading(member, folder / member.file)
    started, tried, room_mb = time.monotonic(), 0, peak_mb() + ROOM_MB
    while tried < LEAST or time.monotonic() - started < SECONDS:
        seed = FIRST_SEED + tried
        content = make(np.random.default_rng(seed))
        member = members[tried % len(members)]
        path = folder / member.file
        path.write_bytes(content)
        before = time.process_time()
        try:
            try_reading(member, path)
        except BaseException as error:
            raise AssertionError(f"{area}: seed {seed}, {member.name}: {error!r:.300}") from error
        took_s = time.process_time() - before
        assert took_s < PATIENCE_S, f"{area}: seed {seed}, {member.name}: {took_s:.1f} s"
        assert peak_mb() < room_mb, f"{area}: seed {seed}, {member.name}: {peak_mb():.0f} MB"
        tried += 1
    if REPORT:
        with Path(REPORT).open("a", encoding="utf-8") as file:
            file.write(f"{area}\t{tried}\n")
    return tried


def peak_mb() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def mutate(rng: np.random.Generator, data: bytes, words: Sequence[bytes] = ()) -> bytes:
    """Flip, cut, double, move and put in, a few times."""
    for _ in range(int(rng.integers(1, 8))):
        data = _mutate_once(rng, data, words)
    return data


def _mutate_once(rng: np.random.Generator, data: bytes, words: Sequence[bytes]) -> bytes:
    noise = rng.integers(0, 256, 200, np.uint8).tobytes()
    if not data:
        return noise[:20]
    start = int(rng.integers(len(data)))
    stop = min(len(data), start + int(rng.integers(1, 200)))
    word = words[int(rng.integers(len(words)))] if words else noise[:4]
    before, piece, after = data[:start], data[start:stop], data[stop:]
    changed = [
        before + bytes([piece[0] ^ 1 << int(rng.integers(8))]) + data[start + 1 :],
        before + after,
        before + piece * int(rng.integers(2, 20)) + after,
        before + word + after,
        before + word + piece + after,
        before or data[:1],
        before + noise[: len(piece)] + after,
    ]
    return changed[int(rng.integers(len(changed)))]
