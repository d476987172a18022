"""Encoded clips and captions in memory, as the pre-trainer reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from resonate_audio.core.types import TextFeatures


@dataclass(frozen=True)
class CaptionTable:
    """Text features of every distinct caption; caption 0 is the empty prompt.

    Tokens are stored without the zeros that pad them (MiniLM pads with zeros, T5 does not), one
    caption after the other.
    """

    tokens: Float[Tensor, "position dim"]
    starts: Int[Tensor, " caption"]
    lengths: Int[Tensor, " caption"]
    pooled: Float[Tensor, "caption pooled_dim"]
    num_tokens: int

    def features(self, captions: Int[Tensor, " row"]) -> TextFeatures:
        """Float32 features of one caption per row."""
        steps = torch.arange(self.num_tokens, device=captions.device)
        inside = steps[None] < self.lengths[captions][:, None]
        positions = (self.starts[captions][:, None] + steps[None]) * inside
        tokens = self.tokens[positions].float() * inside[..., None]
        return TextFeatures(tokens, self.pooled[captions].float())

    def to(self, device: torch.device) -> CaptionTable:
        """The same table on another device."""
        fields = (self.tokens, self.starts, self.lengths, self.pooled)
        tokens, starts, lengths, pooled = (field.to(device) for field in fields)
        return CaptionTable(tokens, starts, lengths, pooled, self.num_tokens)


def pack_captions(features: TextFeatures) -> CaptionTable:
    """Build a table from padded features, dropping trailing zero tokens, in half precision."""
    num_tokens = features.tokens.shape[1]
    used = features.tokens.ne(0).any(dim=-1)
    places = torch.arange(1, num_tokens + 1, device=used.device)
    lengths = (used * places).amax(dim=1)
    inside = places[None] <= lengths[:, None]
    starts = lengths.cumsum(0) - lengths
    tokens = features.tokens[inside].half()
    return CaptionTable(tokens, starts, lengths, features.pooled.half(), num_tokens)


def join_captions(tables: Sequence[CaptionTable]) -> CaptionTable:
    """One table after the other."""
    sizes = torch.tensor([0, *(len(table.tokens) for table in tables[:-1])]).cumsum(0).tolist()
    return CaptionTable(
        torch.cat([table.tokens for table in tables]),
        torch.cat([table.starts + size for table, size in zip(tables, sizes, strict=True)]),
        torch.cat([table.lengths for table in tables]),
        torch.cat([table.pooled for table in tables]),
        tables[0].num_tokens,
    )


@dataclass(frozen=True)
class LatentBucket:
    """The clips of one window length, as posteriors of the VAE."""

    mean: Float[Tensor, "clip frame channel"]
    std: Float[Tensor, "clip frame channel"]
    num_real_frames: Int[Tensor, " clip"]
    """Frames that hold the recording; the rest is the silence after it."""
    captions: Int[Tensor, "clip alternative"]
    """Rows of the caption table; unused places hold 0."""
    num_captions: Int[Tensor, " clip"]

    @property
    def num_clips(self) -> int:
        """Clips in this bucket."""
        return self.mean.shape[0]

    @property
    def num_frames(self) -> int:
        """Latent frames of the window."""
        return self.mean.shape[1]

    def to(self, device: torch.device) -> LatentBucket:
        """The same bucket on another device."""
        fields = (self.mean, self.std, self.num_real_frames, self.captions, self.num_captions)
        return LatentBucket(*[x.to(device) for x in fields])


@dataclass(frozen=True)
class LatentSet:
    """Everything the pre-trainer trains on."""

    buckets: tuple[LatentBucket, ...]
    captions: CaptionTable

    @property
    def num_clips(self) -> int:
        """Clips in all buckets."""
        return sum(bucket.num_clips for bucket in self.buckets)

    def statistics(self) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
        """Mean and standard deviation per channel of sampled latents."""
        return latent_statistics(self.buckets)

    def empty_prompt(self) -> TextFeatures:
        """Features of the empty prompt."""
        return self.captions.features(torch.zeros(1, dtype=torch.long))

    def to(self, device: torch.device) -> LatentSet:
        """The same set on another device."""
        buckets = tuple(bucket.to(device) for bucket in self.buckets)
        return LatentSet(buckets, self.captions.to(device))


def latent_statistics(
    buckets: tuple[LatentBucket, ...],
) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
    """Mean and standard deviation per channel of latents sampled from the posteriors.

    E z = E μ and Var z = E(μ² + σ²) − (E μ)², over every frame of every clip.
    """
    count = sum(bucket.num_clips * bucket.num_frames for bucket in buckets)
    firsts = [b.mean.double().sum((0, 1)) for b in buckets]
    seconds = [(b.mean.double() ** 2 + b.std.double() ** 2).sum((0, 1)) for b in buckets]
    mean = torch.stack(firsts).sum(0) / count
    variance = torch.stack(seconds).sum(0) / count - mean**2
    return mean.float(), variance.clamp_min(1e-12).sqrt().float()
