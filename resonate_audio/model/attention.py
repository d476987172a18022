"""Queries, keys and values of one stream, and attention over all streams together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resonate_audio.model.embeddings import rotate_pairs
from resonate_audio.model.products import RMS_EPS, attend_in_products, head_vectors, in_products


class HeadVectors(NamedTuple):
    """Queries, keys and values, split into heads."""

    query: Float[Tensor, "row head position dim"]
    key: Float[Tensor, "row head position dim"]
    value: Float[Tensor, "row head position dim"]


class HeadProjection(nn.Module):
    """One linear to queries, keys and values; RMSNorm and RoPE on queries and keys.

    The output channels of the linear lie (head, dim, 3), query/key/value fastest, as in the
    published checkpoints.
    """

    def __init__(self, hidden: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.query_norm = nn.RMSNorm(hidden // num_heads, eps=RMS_EPS)
        self.key_norm = nn.RMSNorm(hidden // num_heads, eps=RMS_EPS)

    def forward(
        self,
        x: Float[Tensor, "row position hidden"],
        angles: Float[Tensor, "position pair"] | None,
    ) -> HeadVectors:
        """Project, normalise and, unless ``angles`` is None, turn queries and keys."""
        if angles is not None and in_products(x):
            norms = self.query_norm.weight, self.key_norm.weight
            return HeadVectors(*head_vectors(x, self.qkv, norms, self.num_heads, angles))
        heads = self.qkv(x).unflatten(-1, (self.num_heads, -1, 3)).transpose(1, 2)
        query, key, value = heads.unbind(-1)
        dtype = self.query_norm.weight.dtype  # under autocast the weights are wider than x
        query, key = self.query_norm(query.to(dtype)), self.key_norm(key.to(dtype))
        if angles is not None:
            query, key = rotate_pairs(query, angles), rotate_pairs(key, angles)
        return HeadVectors(query.to(value.dtype), key.to(value.dtype), value)


def attend(*streams: HeadVectors) -> Float[Tensor, "row position hidden"]:
    """Let every position of every stream attend to all of them, without a mask.

    softmax(q·kᵀ/√d)·v          [arXiv:1706.03762, eq. 1]

    Returns:
        Positions of the streams one after the other, heads joined.
    """
    query, key, value = (torch.cat(parts, dim=2) for parts in zip(*streams, strict=True))
    if in_products(query):
        return attend_in_products(query, key, value)
    attended = nn.functional.scaled_dot_product_attention(query, key, value)
    return attended.transpose(1, 2).flatten(2)
