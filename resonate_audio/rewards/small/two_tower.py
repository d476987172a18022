"""A small CLAP: one tower hears, the other reads, and the cosine between them is the score.

Contrastive pre-training of language and audio [arXiv:2206.04769; arXiv:2211.06687]: each tower sums
a whole clip or a whole sentence up in one vector, so what is in it can be told, but in which order
and how often can hardly be ("bag of words", arXiv:2310.08753). That is what it is here for: a judge
to compare an audio LLM with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.audio.mel import MelConfig, MelFrontEnd
from resonate_audio.core.config import NetworkConfig
from resonate_audio.core.types import Rewards, TextFeatures, Waveform
from resonate_audio.rewards.base import make_rewards
from resonate_audio.rewards.small.judge import (
    TEXT_WIDTH,
    SmallJudge,
    judge_samples,
    read_judge_config,
)


class TwoTowerConfig(NetworkConfig):
    """Sizes of the two towers."""

    mel: MelConfig = MelConfig(
        sample_rate_hz=16_000, n_fft=1024, hop_samples=320, num_bands=64, max_hz=8_000, log="log10"
    )
    channels: tuple[int, ...] = (32, 64, 128, 256)
    """Width of each stage of the hearing tower; each halves time and frequency."""
    text_width: int = Field(TEXT_WIDTH, ge=1)
    hidden: int = Field(512, ge=1)
    """Width inside the reading tower."""
    dim: int = Field(256, ge=1)
    """Width of the space that both meet in."""
    range_db: float = Field(80.0, gt=0)
    """What lies further below the clip's loudest cell is silence."""


class TwoTower(nn.Module):
    """Sounds and text features to unit vectors of one space."""

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = MelFrontEnd(config.mel)
        widths = config.channels
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 5, 2, 2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        pairs = zip((widths[0], *widths[:-1]), widths, strict=True)
        self.stages = nn.Sequential(
            *(Stage(before, after, 1 if i == 0 else 2) for i, (before, after) in enumerate(pairs))
        )
        self.hear = nn.Linear(2 * widths[-1], config.dim)
        self.read = nn.Sequential(
            nn.Linear(config.text_width, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.dim),
        )
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-5.0))

    def pictures(self, waves: Float[Tensor, "row sample"]) -> Float[Tensor, "row band hop"]:
        """Log-mel relative to the clip's loudest cell: 1 there, 0 at the floor."""
        level_db: Tensor = 20 * self.mel(waves)
        peak_db = level_db.amax(dim=(1, 2), keepdim=True)
        return ((level_db - peak_db) / self.config.range_db + 1).clamp_min(0)

    def embed_pictures(self, pictures: Float[Tensor, "row band hop"]) -> Float[Tensor, "row dim"]:
        """Unit vectors of what is heard: mean and maximum over time and frequency, projected."""
        hidden = self.stages(self.stem(pictures[:, None]))
        pooled = torch.cat([hidden.mean(dim=(2, 3)), hidden.amax(dim=(2, 3))], dim=1)
        return F.normalize(self.hear(pooled), dim=1)

    def embed_texts(self, features: TextFeatures) -> Float[Tensor, "row dim"]:
        """Unit vectors of what is read, from the pooled text features."""
        return F.normalize(self.read(features.pooled), dim=1)


class Stage(nn.Module):
    """Two 3×3 convolutions beside a shortcut; ``stride`` divides time and frequency."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(stride, ceil_mode=True), nn.Conv2d(before, after, 1, bias=False)
        )

    def forward(
        self, hidden: Float[Tensor, "row channel band hop"]
    ) -> Float[Tensor, "row channel2 band2 hop2"]:
        """One residual stage."""
        return torch.relu(self.branch(hidden) + self.shortcut(hidden))


def contrastive_loss(
    sounds: Float[Tensor, "row dim"],
    texts: Float[Tensor, "row dim"],
    log_scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Say of each pair of the batch whether it belongs together.

    L = −(1/n) Σ_ij log σ(y_ij (e^s x_i·t_j + b)),  y = 1 on the diagonal, −1 elsewhere
    [SigLIP, arXiv:2303.15343, sec. 3.2]
    """
    logits = log_scale.exp() * sounds @ texts.T + bias
    signs = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)


class TwoTowerReward(SmallJudge[TwoTower]):
    """Score = cosine between what is heard and what is asked for, in [−1, 1]."""

    default_name = "clap"

    @classmethod
    def make_network(cls, folder: Path) -> TwoTower:
        """The network of a folder, without its weights."""
        return TwoTower(read_judge_config(TwoTowerConfig, folder))

    @torch.inference_mode()
    def _score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        waves = judge_samples(audio, self.network.config.mel.sample_rate_hz)
        pictures = self.network.pictures(waves.to(self.text_encoder.device))
        sounds = self.network.embed_pictures(pictures)
        texts = self.network.embed_texts(self.text_encoder.encode(prompts))
        return make_rewards((sounds * texts).sum(dim=1), self.name, len(prompts))
