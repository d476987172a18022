"""Which clips make up batch number n: a pure function of (seed, n)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of one bucket."""

    bucket: int
    rows: Int[Tensor, " row"]


@dataclass
class BatchPlan:
    """Splits every epoch into batches of one bucket each, in an order of its own.

    Every clip occurs exactly once per epoch; the last batch of a bucket may be smaller. Batch n
    depends on the seed and on n alone, so a resumed run reads on where it stopped.
    """

    bucket_sizes: Sequence[int]
    rows_per_batch: Sequence[int]
    seed: int
    _epoch: int = field(default=-1, init=False, repr=False)
    _batches: list[Batch] = field(default_factory=list, init=False, repr=False)

    @property
    def batches_per_epoch(self) -> int:
        """How many batches cover every clip once."""
        sizes = zip(self.bucket_sizes, self.rows_per_batch, strict=True)
        return sum(-(-size // rows) for size, rows in sizes)

    def batch(self, index: int) -> Batch:
        """Batch number ``index`` since the beginning of the run."""
        epoch, position = divmod(index, self.batches_per_epoch)
        if epoch != self._epoch:  # only the epoch at hand is kept
            self._batches, self._epoch = self._shuffle(epoch), epoch
        return self._batches[position]

    def _shuffle(self, epoch: int) -> list[Batch]:
        digest = hashlib.blake2b(f"{self.seed}/epoch {epoch}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        batches = []
        for bucket, size in enumerate(self.bucket_sizes):
            order = torch.randperm(size, generator=generator)
            parts = torch.split(order, self.rows_per_batch[bucket])
            batches += [Batch(bucket, rows) for rows in parts]
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
