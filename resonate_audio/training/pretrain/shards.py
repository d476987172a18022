"""Flow-matching pre-training on shards: more clips than memory holds, read ahead of the updates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from resonate_audio.data.latents import LatentSet
from resonate_audio.data.shards.order import WINDOW, ShardPlan
from resonate_audio.data.shards.read import LatentShards, ReadAhead
from resonate_audio.flow.objective import make_frame_mask
from resonate_audio.flow.times import logit_normal_times
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.training.loop.distributed import ALONE, Ranks, check_split
from resonate_audio.training.loop.task import Draw
from resonate_audio.training.pretrain.task import FlowBatch, FlowConfig, PretrainTask, captions_at


@dataclass(frozen=True)
class OwnRows:
    """What one process has read of a batch."""

    num_rows: int
    """Of the whole batch."""
    num_frames: int
    rows: Int[Tensor, " own"]
    """Which of them are here; clips that cannot be used are not."""
    data: LatentSet | None


class ShardPretrainTask(PretrainTask):
    """Flow matching over `LatentShards`.

    Which clips make up a batch is known from the index, so each process reads its own rows only.
    All random numbers are drawn for the whole batch: any number of processes computes the same.
    """

    def __init__(  # not the parent's, which wants all latents in memory
        self,
        model: FlowTransformer,
        data: LatentShards,
        config: FlowConfig,
        seed: int,
        ranks: Ranks = ALONE,
        listen: Callable[[FlowTransformer, Path, int], None] | None = None,
        window: int = WINDOW,
    ) -> None:
        self.model = model
        self.phases = {"model": model}
        self.config = config
        self.listen = listen
        self._ranks = ranks
        self._shards = data
        sizes, frames = data.shards.sizes, data.shards.frames
        self._plan = ShardPlan(sizes, frames, config.frames_per_batch, seed, window)
        self._read = ReadAhead(self._read_own)

    def check_ranks(self, ranks: Ranks) -> None:
        """Refuse batches that the processes cannot share evenly."""
        for frames, rows in self._plan.rows.items():
            name = f"flow.frames_per_batch {self.config.frames_per_batch} ({frames} a row)"
            check_split(rows, ranks, name)

    def _read_own(self, index: int) -> OwnRows:
        numbers = self._plan.batch(index)
        mine = np.arange(self._ranks.rank, len(numbers), self._ranks.world)
        kept, data = self._shards.read(numbers[mine])
        frames = int(self._plan.frames[numbers[0]])
        return OwnRows(len(numbers), frames, torch.from_numpy(mine[kept]), data)

    def draw_batch(self, draw: Draw) -> FlowBatch:
        """Sample latents, captions, dropped prompts, noise levels and noise of the own rows."""
        assert draw.ranks == self._ranks, (draw.ranks, self._ranks)
        own, device = self._read(draw.index), self.model.latent_mean.device
        shape = (own.num_rows, own.num_frames, self._shards.settings.channels)
        spread = torch.randn(shape, generator=draw.generator, device=device)
        uniform = torch.rand(2, own.num_rows, generator=draw.generator, device=device)
        normals = torch.randn(own.num_rows, generator=draw.generator, device=device)
        times = logit_normal_times(normals, self.config.time_mean, self.config.time_std)
        noise = torch.randn(shape, generator=draw.generator, device=device)
        if own.data is None:
            return self._weightless(noise[:1], times[:1])
        data, rows = own.data.to(device), own.rows.to(device)
        (bucket,) = data.buckets
        latents = bucket.mean.float() + bucket.std.float() * spread[rows]
        places = torch.arange(len(rows), device=device)
        captions = captions_at(bucket, places, uniform[:, rows], self.config.condition_dropout)
        mask = None
        if self.config.mask_padding:
            mask = make_frame_mask(bucket.num_real_frames, bucket.num_frames)
        return FlowBatch(
            self.model.normalize(latents), noise[rows], times[rows],
            data.captions.features(captions), mask, len(rows) / own.num_rows,
        )  # fmt: skip

    def own_batch(self, draw: Draw) -> FlowBatch:
        """The same: only the own rows were read."""
        return self.draw_batch(draw)

    def _weightless(self, noise: Tensor, times: Tensor) -> FlowBatch:
        """A row that counts for nothing, where no clip is left: the others expect a gradient."""
        features = self._shards.empty_prompt()
        here = type(features)(features.tokens.to(noise), features.pooled.to(noise))
        return FlowBatch(torch.zeros_like(noise), noise, times, here, None, 0.0)
