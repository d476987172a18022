"""Flow-matching pre-training on cached latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.room import IN_TRAINING, refuse_too_large
from resonate_audio.core.types import TextFeatures
from resonate_audio.data.batches import BatchPlan
from resonate_audio.data.latents import LatentBucket, LatentSet
from resonate_audio.data.shards.read import LatentShards
from resonate_audio.flow.objective import cfm_loss, make_frame_mask
from resonate_audio.flow.times import logit_normal_times
from resonate_audio.model.checkpoint import write_weights
from resonate_audio.model.flow_transformer import FlowTransformer, FlowTransformerConfig
from resonate_audio.training.loop.distributed import Ranks, check_split, plain_state
from resonate_audio.training.loop.task import Draw, Losses, Task


class FlowConfig(FrozenConfig):
    """What the flow-matching loss is taken over."""

    frames_per_batch: int = Field(10_000, ge=1, le=100_000_000)
    """Latent frames of one batch, over all processes: short windows get more rows."""
    condition_dropout: float = Field(0.1, ge=0, le=1)
    """Share of rows trained with the empty prompt (tokens and pooled together)."""
    time_mean: float = 0.0
    time_std: float = Field(1.0, gt=0)
    """t = sigmoid(mean + std · normal) [arXiv:2403.03206, sec. 3.1]."""
    mask_padding: bool = False
    """Leave the silence after a clip out of the loss; off, the model learns when to be silent."""


@dataclass(frozen=True)
class FlowBatch:
    """One batch before it meets the model."""

    data: Float[Tensor, "row frame channel"]
    """Normalised latents."""
    noise: Float[Tensor, "row frame channel"]
    times: Float[Tensor, " row"]
    features: TextFeatures
    mask: Bool[Tensor, "row frame"] | None
    share: float = 1.0
    """Of the whole batch's rows."""

    def part_of(self, ranks: Ranks) -> FlowBatch:
        """The rows of one process; a row that weighs nothing where there are too few."""
        if ranks.world == 1:
            return self
        own = ranks.mine(torch.arange(len(self.data), device=self.data.device))
        share = len(own) / len(self.data)
        own = own if len(own) else own.new_zeros(1)
        mask = None if self.mask is None else self.mask[own]
        return FlowBatch(
            self.data[own], self.noise[own], self.times[own], self.features.rows(own), mask, share
        )


class PretrainTask(Task):
    """Flow matching over a `LatentSet`."""

    state: Callable[[FlowTransformer], dict[str, Tensor]] = staticmethod(plain_state)
    """The weights of the model under their plain names."""
    write: Callable[[FlowTransformer, Path], None] = staticmethod(lambda model, folder: None)
    """Writes what is exported beside the weights."""

    def __init__(
        self,
        model: FlowTransformer,
        data: LatentSet,
        config: FlowConfig,
        seed: int,
        listen: Callable[[FlowTransformer, Path, int], None] | None = None,
    ) -> None:
        self.model = model
        self.phases = {"model": model}
        self.data = data
        self.config = config
        self.listen = listen
        sizes = [bucket.num_clips for bucket in data.buckets]
        rows = [max(1, config.frames_per_batch // bucket.num_frames) for bucket in data.buckets]
        self.plan = BatchPlan(sizes, rows, seed)

    def check_ranks(self, ranks: Ranks) -> None:
        """Refuse batches that the processes cannot share evenly."""
        for rows, bucket in zip(self.plan.rows_per_batch, self.data.buckets, strict=True):
            frames = self.config.frames_per_batch
            check_split(rows, ranks, f"flow.frames_per_batch {frames} ({bucket.num_frames} a row)")

    def draw_batch(self, draw: Draw) -> FlowBatch:
        """Sample latents, captions, dropped prompts, noise levels and noise of one batch."""
        batch = self.plan.batch(draw.index)
        bucket = self.data.buckets[batch.bucket]
        rows = batch.rows.to(bucket.mean.device)
        data = self.model.normalize(sample_latents(bucket, rows, draw.generator))
        captions = choose_captions(bucket, rows, self.config.condition_dropout, draw.generator)
        normals = torch.randn(len(rows), generator=draw.generator, device=data.device)
        times = logit_normal_times(normals, self.config.time_mean, self.config.time_std)
        noise = torch.randn(data.shape, generator=draw.generator, device=data.device)
        mask = None
        if self.config.mask_padding:
            mask = make_frame_mask(bucket.num_real_frames[rows], bucket.num_frames)
        return FlowBatch(data, noise, times, self.data.captions.features(captions), mask)

    def own_batch(self, draw: Draw) -> FlowBatch:
        """The rows of a batch that this process computes."""
        return self.draw_batch(draw).part_of(draw.ranks)

    def loss(self, phase: str, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        """Flow-matching loss of one batch, or of a process's share of it."""
        batch = self.own_batch(draw)
        conditions = self.model.condition(batch.features)
        result = cfm_loss(
            lambda z, t: self.model(z, t, conditions),
            batch.data,
            batch.noise,
            batch.times,
            batch.mask,
        )
        return batch.share * (self.model.loss_weights(batch.times) * result.rows).mean(), {}

    def sample(self, folder: Path, step: int) -> None:
        """Hand the averaged model to the listener, if there is one."""
        if self.listen is not None:
            self.listen(self.model, folder, step)

    def export(self, folder: Path) -> None:
        """Write the averaged weights, and what else the recipe wants of them."""
        write_weights(folder / "model.safetensors", self.state(self.model), {})
        self.write(self.model, folder)


def sample_latents(
    bucket: LatentBucket, rows: Int[Tensor, " row"], generator: torch.Generator
) -> Float[Tensor, "row frame channel"]:
    """Draw latents from the posteriors of some clips: μ + σ ε."""
    mean, std = bucket.mean[rows].float(), bucket.std[rows].float()
    return mean + std * torch.randn(mean.shape, generator=generator, device=mean.device)


def choose_captions(
    bucket: LatentBucket, rows: Int[Tensor, " row"], dropout: float, generator: torch.Generator
) -> Int[Tensor, " row"]:
    """Pick one of each clip's captions, or the empty prompt with probability ``dropout``."""
    uniform = torch.rand(2, len(rows), generator=generator, device=rows.device)
    return captions_at(bucket, rows, uniform, dropout)


def captions_at(
    bucket: LatentBucket,
    rows: Int[Tensor, " row"],
    uniform: Float[Tensor, "2 row"],
    dropout: float,
) -> Int[Tensor, " row"]:
    """The caption that uniform numbers choose: the first which, the second whether any."""
    counts = bucket.num_captions[rows]
    choice = torch.minimum((uniform[0] * counts).long(), counts - 1)
    chosen = bucket.captions[rows, choice]
    return torch.where(uniform[1] < dropout, torch.zeros_like(chosen), chosen)


def build_transformer(
    config: FlowTransformerConfig,
    data: LatentSet | LatentShards,
    channel_scales: Float[Tensor, " channel"] | None = None,
) -> FlowTransformer:
    """Make a fresh transformer that knows the latent statistics and the empty prompt.

    Args:
        config: its sizes.
        data: what it will be trained on.
        channel_scales: standard deviation that each channel of the normalised latents gets; 1 for
            all of them if None.
    """
    refuse_too_large(lambda: FlowTransformer(config), "model.transformer in training", IN_TRAINING)
    model = FlowTransformer(config)
    set_latent_statistics(model, data, channel_scales)
    empty = data.empty_prompt()
    with torch.no_grad():
        model.empty_tokens.copy_(empty.tokens[0])
        model.empty_pooled.copy_(empty.pooled[0])
    return model


@torch.no_grad()
def set_latent_statistics(
    model: FlowTransformer,
    data: LatentSet | LatentShards,
    channel_scales: Float[Tensor, " channel"] | None = None,
) -> None:
    """Store mean and standard deviation of the data, the latter over ``channel_scales``."""
    mean, std = data.statistics()
    if channel_scales is not None:
        std = std / channel_scales.to(std)
    model.latent_mean.copy_(mean.view(1, 1, -1))
    model.latent_std.copy_(std.view(1, 1, -1))


def scales_by_gain(gains: Float[Tensor, " channel"], exponent: float) -> Float[Tensor, " channel"]:
    """Give channels that matter more in the mel more signal over the same noise.

    s_c ∝ gain_c^exponent, with mean square 1. At 0 all channels meet the noise alike, as in the
    published model, whose latents are no principal components; at 1 the flow-matching loss is
    squared error of the log-mel. In between, coarse shape is decided before detail.
    """
    scales = gains.double() ** exponent
    return (scales / scales.square().mean().sqrt()).float()
