"""The judge that no training uses: every word notes when its sound is heard.

Unlike the two towers it keeps time on both sides until they have met, and unlike an audio LLM it
has no language model: a convolutional tower turns the sound into frames, each word of MiniLM is
compared with every frame, and then the words compare what they noted. It exists to tell whether a
generator that was taught by another judge got better, or only better at pleasing that one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.audio.mel import MelConfig, MelFrontEnd
from resonate_audio.core.config import NetworkConfig
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.base import make_rewards
from resonate_audio.rewards.small.judge import (
    TEXT_WIDTH,
    SmallJudge,
    judge_samples,
    read_judge_config,
)


class MatcherConfig(NetworkConfig):
    """Sizes of the matcher."""

    mel: MelConfig = MelConfig(
        sample_rate_hz=16_000, n_fft=800, hop_samples=256, num_bands=80, max_hz=8_000, log="log10"
    )
    channels: tuple[int, int, int] = (32, 64, 96)
    """Width of the three picture convolutions; the last two halve the time, all the frequency."""
    dim: int = Field(160, ge=8)
    """Width of frames and words."""
    num_mixers: int = Field(5, ge=0)
    """Blocks of depthwise convolutions over time, each seeing twice as far as the one before."""
    num_layers: int = Field(3, ge=1)
    """Times that the words look at the frames and at each other."""
    num_heads: int = Field(4, ge=1)
    text_width: int = Field(TEXT_WIDTH, ge=1)
    match_dim: int = Field(64, ge=1)
    """Width of the space in which words and frames are compared."""
    num_moments: int = Field(80, ge=8)
    """Times at which a word's likeness to the sound is looked at."""
    dropout: float = Field(0.1, ge=0, lt=1)
    range_db: float = Field(70.0, gt=0)


class Matcher(nn.Module):
    """Sounds and word features to the log-odds that they match."""

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = MelFrontEnd(config.mel)
        first, second, third = config.channels
        self.picture = nn.Sequential(
            convolution(1, first, (2, 1)),
            convolution(first, second, (2, 2)),
            convolution(second, second, (1, 1)),
            convolution(second, third, (2, 2)),
        )
        bands = math.ceil(config.mel.num_bands / 8)
        self.flatten = nn.Linear(third * bands, config.dim)
        self.mixers = nn.ModuleList(
            Mixer(config.dim, 2 ** (layer % 4)) for layer in range(config.num_mixers)
        )
        self.words = nn.Linear(config.text_width, config.dim)
        self.names = nn.Sequential(
            nn.Linear(config.text_width, config.dim),
            nn.GELU(),
            nn.Linear(config.dim, config.match_dim),
        )
        self.sounds = nn.Linear(config.dim, config.match_dim)
        self.profile = Profile(config.num_moments, config.dim)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.summary = nn.Parameter(torch.zeros(config.dim))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, 1)

    def pictures(self, waves: Float[Tensor, "row sample"]) -> Float[Tensor, "row band hop"]:
        """Log-mel relative to the clip's loudest cell: 1 there, -1 at the floor."""
        level_db: Tensor = 20 * self.mel(waves)
        relative_db = level_db - level_db.amax(dim=(1, 2), keepdim=True)
        return (2 * relative_db / self.config.range_db + 1).clamp_min(-1)

    def hear(self, pictures: Float[Tensor, "row band hop"]) -> Float[Tensor, "row frame dim"]:
        """Frames of four hops, each of which knows some seconds around it."""
        hidden = self.picture(pictures[:, None])
        frames: Tensor = self.flatten(hidden.permute(0, 3, 1, 2).flatten(2))
        for mixer in self.mixers:
            frames = mixer(frames)
        return frames

    def match(
        self,
        frames: Float[Tensor, "row frame dim"],
        tokens: Float[Tensor, "row token width"],
        mask: Bool[Tensor, "row token"],
    ) -> Float[Tensor, " row"]:
        """Log-odds that each sound has what its text says.

        Args:
            frames: from `hear`.
            tokens: MiniLM's hidden states.
            mask: which of them are words.
        """
        log_odds: Tensor = self.head(self.compare(frames, tokens, mask)[:, 0])[:, 0]
        return log_odds

    def likeness(
        self, frames: Float[Tensor, "row frame dim"], tokens: Float[Tensor, "row token width"]
    ) -> Float[Tensor, "row token frame"]:
        """How much each word means what is heard in each frame: n(w) · s(f) / sqrt(width)."""
        product: Tensor = self.names(tokens) @ self.sounds(frames).transpose(1, 2)
        return product / math.sqrt(self.config.match_dim)

    def compare(
        self,
        frames: Float[Tensor, "row frame dim"],
        tokens: Float[Tensor, "row token width"],
        mask: Bool[Tensor, "row token"],
    ) -> Float[Tensor, "row state dim"]:
        """What the words know after they have listened; a summary of it comes first."""
        summary = self.summary.expand(len(tokens), 1, -1)
        noted = self.words(tokens) + self.profile(self.likeness(frames, tokens))
        states = torch.cat([summary, noted], dim=1)
        states = states + sinusoids(states.shape[1], states.shape[2]).to(states)
        moments = frames + sinusoids(frames.shape[1], frames.shape[2]).to(frames)
        present = F.pad(mask, (1, 0), value=True)
        for layer in self.layers:
            states = layer(states, moments, present)
        normed: Tensor = self.norm(states)
        return normed


def convolution(before: int, after: int, stride: tuple[int, int]) -> nn.Sequential:
    """A 3×3 convolution, normalised, with SiLU; ``stride`` of frequency and time."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU()
    )


class Profile(nn.Module):
    """When a word is heard, and how often: its likeness over time, through two convolutions."""

    def __init__(self, num_moments: int, dim: int) -> None:
        super().__init__()
        self.num_moments = num_moments
        self.near = nn.Sequential(
            nn.Conv1d(1, 16, 5, 2, 2), nn.SiLU(), nn.Conv1d(16, 24, 5, 2, 2), nn.SiLU()
        )
        self.whole = nn.Linear(24 * math.ceil(num_moments / 4), dim)

    def forward(self, likeness: Float[Tensor, "row token frame"]) -> Float[Tensor, "row token dim"]:
        """What a word notes."""
        moments = F.interpolate(likeness, size=self.num_moments, mode="linear")
        hidden = self.near(moments.flatten(0, 1)[:, None]).flatten(1)
        noted: Tensor = self.whole(hidden).unflatten(0, likeness.shape[:2])
        return noted


class Mixer(nn.Module):
    """Frames look at their neighbours: a dilated depthwise convolution, then an MLP."""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.near = nn.Conv1d(dim, dim, 5, padding=2 * dilation, dilation=dilation, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, 2 * dim)
        self.narrow = nn.Linear(2 * dim, dim)

    def forward(self, frames: Float[Tensor, "row frame dim"]) -> Float[Tensor, "row frame dim"]:
        """One block."""
        near = self.near(frames.transpose(1, 2)).transpose(1, 2)
        mixed: Tensor = frames + self.narrow(F.silu(self.widen(self.norm(near))))
        return mixed


class Layer(nn.Module):
    """Words attend to frames, then to words, then think; each step is added to its input."""

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__()
        dim, heads, dropout = config.dim, config.num_heads, config.dropout
        self.listen_norm, self.talk_norm, self.think_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.frame_norm = nn.LayerNorm(dim)
        self.listen = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.talk = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.think = nn.Sequential(
            nn.Linear(dim, 3 * dim), nn.SiLU(), nn.Dropout(dropout), nn.Linear(3 * dim, dim)
        )

    def forward(
        self,
        states: Float[Tensor, "row state dim"],
        moments: Float[Tensor, "row frame dim"],
        present: Bool[Tensor, "row state"],
    ) -> Float[Tensor, "row state dim"]:
        """One layer; states that are not ``present`` are attended to by none."""
        heard = self.frame_norm(moments)
        states = states + self.listen(self.listen_norm(states), heard, heard, need_weights=False)[0]
        said = self.talk_norm(states)
        talk = self.talk(said, said, said, key_padding_mask=~present, need_weights=False)[0]
        states = states + talk
        thought: Tensor = states + self.think(self.think_norm(states))
        return thought


def sinusoids(length: int, dim: int) -> Float[Tensor, "position dim"]:
    """Wavelengths from 2π to 10⁴ · 2π, as sines and cosines [arXiv:1706.03762, sec. 3.5]."""
    rates = torch.exp(-math.log(10_000) * torch.arange(0, dim, 2) / dim)
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def word_mask(tokens: Float[Tensor, "row token width"]) -> Bool[Tensor, "row token"]:
    """Which features are words: the text encoder leaves the others at zero."""
    return tokens.abs().amax(dim=2) > 0


class MatcherReward(SmallJudge[Matcher]):
    """Score = probability that the sound has what the text says."""

    default_name = "matcher"

    @classmethod
    def make_network(cls, folder: Path) -> Matcher:
        """The network of a folder, without its weights."""
        return Matcher(read_judge_config(MatcherConfig, folder))

    @torch.inference_mode()
    def _score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        waves = judge_samples(audio, self.network.config.mel.sample_rate_hz)
        frames = self.network.hear(self.network.pictures(waves.to(self.text_encoder.device)))
        tokens = self.text_encoder.encode(prompts).tokens
        log_odds = self.network.match(frames, tokens, word_mask(tokens))
        parts = {"log_odds": log_odds}
        return make_rewards(log_odds.sigmoid(), self.name, len(prompts), parts)
