"""In which order clips of shards are read: a pure function of (seed, epoch) and of the index.

Nothing is read to know it, so every process knows the whole order, takes its own part of it, and
a run that was stopped goes on at the very clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from resonate_audio.core.errors import ShardError

WINDOW = 10_000
"""Clips that a clip may be moved by within the shuffled shards."""


def epoch_order(
    shard_sizes: Sequence[int], seed: int, epoch: int, window: int = WINDOW
) -> Int64[np.ndarray, " sample"]:
    """Shuffle shards, then clips over a short distance.

    Clip i of the shuffled shards gets the place of i + u · window among its like, u uniform in
    [0, 1): it moves by less than ``window`` places. So what is read at any time lies in few shards,
    as with a buffer of ``window`` clips, but the order is known without reading.

    Returns:
        Numbers of all clips, each once.
    """
    sizes = np.asarray(shard_sizes, dtype=np.int64)
    generator = np.random.default_rng([seed, epoch])
    shards = generator.permutation(len(sizes))
    first = (np.cumsum(sizes) - sizes)[shards]  # of each shard, in the order it was written in
    before = np.cumsum(sizes[shards]) - sizes[shards]
    places = np.arange(sizes.sum())
    numbers = np.repeat(first - before, sizes[shards]) + places
    shuffled: Int64[np.ndarray, " sample"] = numbers[
        np.argsort(places + generator.random(len(places)) * window, kind="stable")
    ]
    return shuffled


def padded_frames(
    frames: Int[np.ndarray, " sample"], step: int = 1
) -> Int64[np.ndarray, " sample"]:
    """Frames that clips take in a batch: rounded up to a multiple of ``step``."""
    return -(-frames.astype(np.int64) // step) * step


@dataclass(frozen=True)
class Batches:
    """Batches of one epoch: clips of equal length, and few of them where they are long."""

    numbers: Int64[np.ndarray, " sample"]
    ends: Int64[np.ndarray, " batch"]
    """Where each batch ends in ``numbers``."""

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Int64[np.ndarray, " row"]:
        start = self.ends[index - 1] if index else 0
        return self.numbers[start : self.ends[index]]


def rows_per_batch(frames: int, frames_per_batch: int) -> int:
    """Clips of one length that a batch holds."""
    return max(1, frames_per_batch // frames)


def make_batches(
    order: Int64[np.ndarray, " sample"],
    frames: Int64[np.ndarray, " sample2"],
    frames_per_batch: int,
) -> Batches:
    """Fill batches in an order; each comes when its last clip does.

    Args:
        order: numbers of the clips.
        frames: of every clip, by its number.
        frames_per_batch: what a batch holds at most, unless one clip alone is longer.
    """
    in_order = frames[order]
    last, parts, sizes = [], [], []
    for length in np.unique(in_order):
        places = np.flatnonzero(in_order == length)
        rows = rows_per_batch(int(length), frames_per_batch)
        ends = np.minimum(np.arange(rows, len(places) + rows, rows), len(places))
        last.append(places[ends - 1])
        sizes.append(np.diff(ends, prepend=0))
        parts += np.split(order[places], ends[:-1])
    if not parts:
        return Batches(np.zeros(0, np.int64), np.zeros(0, np.int64))
    by_time = np.argsort(np.concatenate(last))
    joined = np.concatenate([parts[number] for number in by_time])
    return Batches(joined, np.cumsum(np.concatenate(sizes)[by_time]))


@dataclass
class ShardPlan:
    """Which clips make up batch number n since the beginning of a run."""

    shard_sizes: Sequence[int]
    frames: Int64[np.ndarray, " sample"]
    frames_per_batch: int
    seed: int
    window: int = WINDOW
    _epoch: int = field(default=-1, init=False, repr=False)
    _batches: Batches = field(init=False, repr=False)

    def __post_init__(self) -> None:
        lengths, counts = np.unique(self.frames, return_counts=True)
        rows = [rows_per_batch(int(length), self.frames_per_batch) for length in lengths]
        self.rows = dict(zip(lengths.tolist(), rows, strict=True))
        """Clips of a full batch by their frames."""
        sizes = zip(counts.tolist(), rows, strict=True)
        self.batches_per_epoch = sum(-(-count // size) for count, size in sizes)
        if not self.batches_per_epoch:
            raise ShardError("the shards hold no clip")

    def batch(self, index: int) -> Int64[np.ndarray, " row"]:
        """Numbers of the clips of a batch."""
        epoch, position = divmod(index, self.batches_per_epoch)
        if epoch != self._epoch:  # only the epoch at hand is kept
            order = epoch_order(self.shard_sizes, self.seed, epoch, self.window)
            self._batches = make_batches(order, self.frames, self.frames_per_batch)
            self._epoch = epoch
        return self._batches[position]


@dataclass
class ClipOrder:
    """The clips that one of several readers takes, epoch after epoch, without end.

    Reader r of n takes the places r, r + n, r + 2n, … of the shuffled clips: together they read
    each clip exactly once an epoch, whatever their number.
    """

    shard_sizes: Sequence[int]
    seed: int
    reader: int = 0
    num_readers: int = 1
    window: int = WINDOW
    epoch: int = 0
    done: int = 0
    """Places of this epoch that the readers have passed together."""

    def __iter__(self) -> Iterator[int]:
        """Go on where the state says, to the end of that epoch."""
        order = epoch_order(self.shard_sizes, self.seed, self.epoch, self.window)
        for place in range(self.done + self.reader, len(order), self.num_readers):
            self.done = place - self.reader + self.num_readers
            yield int(order[place])
        self.epoch, self.done = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Where to go on; readers in step have the same state, and any number may take it up."""
        return {
            **{"seed": self.seed, "epoch": self.epoch, "done": self.done},
            **{"window": self.window, "num_samples": sum(self.shard_sizes)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a reader stopped.

        Raises:
            ShardError: the state is of other shards or of another order; names what differs.
        """
        for name in ("seed", "window", "num_samples"):
            if state[name] != self.state_dict()[name]:
                raise ShardError(
                    f"the reader's state is of {name} {state[name]}, not {self.state_dict()[name]}"
                )
        self.epoch, self.done = state["epoch"], state["done"]
