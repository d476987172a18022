"""LAION-CLAP's text tower: RoBERTa, its pooler, and two layers into the space of sounds.

Written out like `minilm`, whose blocks it has; ``tests/model/test_clap_text.py`` compares it with
transformers' own classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.model.minilm import MiniLM, MiniLMConfig, rename_minilm

TOWERS = ("text_branch.", "text_model.")
"""How the tower's names begin: in LAION's files, in transformers'."""
RENAMED = (
    ("text_projection.0.", "project_in."),
    ("text_projection.2.", "project_out."),
    ("text_projection.linear1.", "project_in."),
    ("text_projection.linear2.", "project_out."),
)
"""The projection: LAION's name → ours, then transformers'."""


class ClapTextConfig(MiniLMConfig):
    """Sizes, under the names of the published ``config.json``; by default those of LAION-CLAP."""

    vocab_size: int = Field(default=50_265, ge=1)
    hidden_size: int = Field(default=768, ge=1)
    intermediate_size: int = Field(default=3072, ge=1)
    num_hidden_layers: int = Field(default=12, ge=1)
    num_attention_heads: int = Field(default=12, ge=1)
    max_position_embeddings: int = Field(default=514, ge=1)
    type_vocab_size: int = Field(default=1, ge=1)
    layer_norm_eps: float = Field(default=1e-5, gt=0)
    pad_token_id: int = Field(default=1, ge=0)
    """Of padding, and the position that padding has; real positions follow it."""
    projection_dim: int = Field(default=512, ge=1)


class ClapText(nn.Module):
    """Token ids to one vector of unit length that lies near the sounds it describes.

    RoBERTa's blocks [arXiv:1907.11692] → tanh(linear) of the first position → linear → ReLU →
    linear → x/‖x‖ [LAION-CLAP, arXiv:2211.06687, sec. 3.1]
    """

    def __init__(self, config: ClapTextConfig) -> None:
        super().__init__()
        width, dim = config.hidden_size, config.projection_dim
        self.pad_token_id = config.pad_token_id
        self.tower = MiniLM(config)
        self.pooler = nn.Linear(width, width)
        self.project_in = nn.Linear(width, dim)
        self.project_out = nn.Linear(dim, dim)

    def forward(
        self, ids: Int64[Tensor, "row token"], mask: Bool[Tensor, "row token"]
    ) -> Float[Tensor, "row dim"]:
        """Embed texts; ``mask`` is false at padding, which must be on the right."""
        positions = torch.where(mask, mask.cumsum(dim=1), 0) + self.pad_token_id
        first = self.tower(ids, mask, positions)[:, 0]
        inner = self.project_in(torch.tanh(self.pooler(first)))
        return F.normalize(self.project_out(F.relu(inner)), dim=-1)


def rename_clap_text(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text half of a CLAP checkpoint under our names; the rest is left out.

    Names nobody knows inside that half pass through, so that a strict load names them.
    """
    tower: dict[str, Tensor] = {}
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        prefix = next((start for start in TOWERS if name.startswith(start)), None)
        if name.endswith("token_type_ids"):
            continue  # a table of zeros
        if prefix is not None:
            tower[name.removeprefix(prefix)] = value
        elif name.startswith("text_projection."):
            for published, ours in RENAMED:
                name = name.replace(published, ours)
            renamed[name] = value
    for kind in ("weight", "bias"):
        if f"pooler.dense.{kind}" in tower:
            renamed[f"pooler.{kind}"] = tower.pop(f"pooler.dense.{kind}")
    return renamed | {f"tower.{name}": value for name, value in rename_minilm(tower).items()}
