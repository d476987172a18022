"""MiniLM: the BERT encoder of all-MiniLM-L6-v2, in plain torch.

Written out because importing transformers takes longer than everything else that ``nano`` does
before its first sound; ``tests/model/test_text_encoder.py`` compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from resonate_audio.core.config import NetworkConfig

RENAMED = (
    ("encoder.layer.", "blocks."),
    ("attention.self.", ""),
    ("attention.output.dense.", "out."),
    ("attention.output.LayerNorm.", "attention_norm."),
    ("intermediate.dense.", "widen."),
    ("output.dense.", "narrow."),
    ("output.LayerNorm.", "mlp_norm."),
    ("embeddings.LayerNorm.", "embedding_norm."),
    ("embeddings.word_embeddings.", "words."),
    ("embeddings.position_embeddings.", "positions."),
    ("embeddings.token_type_embeddings.", "segments."),
)
"""Published name → ours, applied in this order."""


class MiniLMConfig(NetworkConfig):
    """Sizes, under the names of the published ``config.json``; other settings are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    max_position_embeddings: int = Field(ge=1)
    type_vocab_size: int = Field(default=2, ge=1)
    layer_norm_eps: float = Field(default=1e-12, gt=0)


class MiniLM(nn.Module):
    """Token ids to hidden states: post-norm transformer blocks with exact GELU [BERT, 2018]."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.words = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_position_embeddings, width)
        self.segments = nn.Embedding(config.type_vocab_size, width)
        self.embedding_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        ids: Int64[Tensor, "row token"],
        mask: Bool[Tensor, "row token"],
        positions: Int64[Tensor, "row token"] | None = None,
    ) -> Float[Tensor, "row token dim"]:
        """Hidden states of the last block; attention sees only positions where ``mask`` is true.

        Args:
            ids: token ids.
            mask: false at padding.
            positions: number of each token's position; 0, 1, … if None.
        """
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        hidden: Tensor = self.words(ids) + self.positions(positions) + self.segments.weight[0]
        hidden = self.embedding_norm(hidden)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return hidden


class Block(nn.Module):
    """Self-attention then MLP, each added to its input and normalised."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.num_heads = config.num_attention_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps)
        self.widen = nn.Linear(width, config.intermediate_size)
        self.narrow = nn.Linear(config.intermediate_size, width)
        self.mlp_norm = nn.LayerNorm(width, eps)

    def forward(
        self, hidden: Float[Tensor, "row token dim"], mask: Bool[Tensor, "row token"]
    ) -> Float[Tensor, "row token dim"]:
        """One block."""
        q, k, v = (
            project(hidden).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        hidden = self.attention_norm(hidden + self.out(mixed.transpose(1, 2).flatten(2)))
        output: Tensor = self.mlp_norm(hidden + self.narrow(F.gelu(self.widen(hidden))))
        return output


def rename_minilm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under our names; the pooler and the position index are left out."""
    renamed = {}
    for name, value in state.items():
        if name.startswith("pooler.") or name.endswith("position_ids"):
            continue
        ours = name
        for published, short in RENAMED:
            ours = ours.replace(published, short)
        renamed[ours] = value
    return renamed
