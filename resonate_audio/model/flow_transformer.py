"""The velocity network: latents, a noise level and a prompt in, velocity out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resonate_audio.core.config import NetworkConfig
from resonate_audio.core.errors import InputError
from resonate_audio.core.types import TextFeatures
from resonate_audio.model.blocks import (
    JointBlock,
    LatentProjection,
    SingleBlock,
    TextProjection,
    VelocityHead,
    initialise,
)
from resonate_audio.model.embeddings import TimestepEmbedding, rotary_angles

TIMESTEP_INIT_STD = 0.02


class FlowTransformerConfig(NetworkConfig):
    """Sizes of the flow transformer."""

    latent_channels: int = Field(gt=0)
    hidden: int = Field(gt=0)
    """Width of both streams; a whole number of heads, each of even size."""
    num_heads: int = Field(gt=0)
    num_joint_blocks: int = Field(ge=1)
    """Blocks where latents and text attend to each other; they come first."""
    num_single_blocks: int = Field(ge=0)
    """Blocks of latents alone."""
    mlp_ratio: float = Field(default=4.0, gt=0)
    """Inner width of the MLPs over ``hidden``, before the 2/3 of the gated form."""
    text_dim: int = Field(gt=0)
    """Channels of the text encoder's tokens."""
    pooled_dim: int = Field(gt=0)
    """Channels of the text encoder's pooled vector."""
    num_text_tokens: int = Field(gt=0)
    max_frames: int = Field(default=2048, gt=0)
    """Longest clip, in latent frames."""
    mean_velocity: bool = False
    """Whether it has a second time r ≤ t and predicts the mean velocity between both
    [arXiv:2505.13447], so that a step of any length is one evaluation."""
    data_std: float | None = Field(None, gt=0, le=100)
    """Standard deviation of the normalised latents, for a network that adds to a multiple of its
    input (`FlowEnds.from_output`); None is a network whose output is the velocity."""

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> FlowTransformerConfig:
        if self.hidden % (2 * self.num_heads):
            raise ValueError(
                f"hidden {self.hidden} does not split into {self.num_heads} heads of even size"
            )
        return self

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden // self.num_heads


@dataclass(frozen=True)
class Conditions:
    """Prompts at the width of the network; computed once for a whole trajectory."""

    tokens: Float[Tensor, "row token hidden"]
    pooled: Float[Tensor, "row hidden"]

    def followed_by(self, other: Conditions) -> Conditions:
        """These rows, then those of ``other``: one batch for both branches of guidance."""
        return Conditions(
            torch.cat([self.tokens, other.tokens]), torch.cat([self.pooled, other.pooled])
        )

    def repeated(self, times: int) -> Conditions:
        """These rows, then the same again, so many times in all."""
        return Conditions(self.tokens.repeat(times, 1, 1), self.pooled.repeat(times, 1))


class FlowEnds(nn.Module):
    """All of the network but its blocks: what goes in, what comes out, what is stored."""

    latent_mean: Float[Tensor, "1 1 channel"]
    latent_std: Float[Tensor, "1 1 channel"]
    empty_tokens: Float[Tensor, "token dim"]
    empty_pooled: Float[Tensor, " dim"]

    def __init__(self, config: FlowTransformerConfig) -> None:
        super().__init__()
        self.config = config
        hidden, ratio = config.hidden, config.mlp_ratio
        self.latent_in = LatentProjection(config.latent_channels, hidden, ratio)
        self.text_in = TextProjection(config.text_dim, hidden, ratio)
        self.pooled_in = TextProjection(config.pooled_dim, hidden, ratio)
        self.timestep = TimestepEmbedding(hidden)
        if config.mean_velocity:
            self.end_timestep = TimestepEmbedding(hidden)
        self._make_blocks()
        self.head = VelocityHead(hidden, config.latent_channels)
        self.register_buffer("latent_mean", torch.zeros(1, 1, config.latent_channels))
        self.register_buffer("latent_std", torch.ones(1, 1, config.latent_channels))
        self.register_buffer("empty_tokens", torch.zeros(config.num_text_tokens, config.text_dim))
        self.register_buffer("empty_pooled", torch.zeros(config.pooled_dim))

    def _make_blocks(self) -> None:
        """Put blocks between the ends, where their parameters have their place in the order."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; latents may stay in float32 around a smaller network."""
        return self.head.conv.weight.dtype

    def from_output(
        self,
        output: Float[Tensor, "row frame channel"],
        z: Float[Tensor, "row frame channel"],
        t: Float[Tensor, " row"],
    ) -> Float[Tensor, "row frame channel"]:
        """The velocity that the network's output stands for.

        v = k z + c F, with v ≈ k z the best that can be said of v = n - x by z = (1-t) x + t n
        alone, and F of unit variance where x has the deviation σ:
        k = (t - (1-t) σ²) / (t² + (1-t)² σ²), c = σ / √(t² + (1-t)² σ²)
        [arXiv:2206.00364, sec. 5, for straight paths]. Else all that passes noise through the
        network is lost on the way, and is heard.
        """
        std = self.config.data_std
        if std is None:
            return output.to(z.dtype)
        t = t[:, None, None].to(z.dtype)
        power = t.square() + (1 - t).square() * std**2
        kept = (t - (1 - t) * std**2) / power
        return kept * z + std * power.rsqrt() * output.to(z.dtype)

    def loss_weights(self, t: Float[Tensor, " row"]) -> Float[Tensor, " row"]:
        """1/c², which makes the squared error of the velocity that of the network's output."""
        std = self.config.data_std
        if std is None:
            return torch.ones_like(t)
        return (t.square() + (1 - t).square() * std**2) / std**2

    def normalize(
        self, z: Float[Tensor, "row frame channel"]
    ) -> Float[Tensor, "row frame channel"]:
        """VAE latents to mean 0 and standard deviation 1 per channel."""
        return (z - self.latent_mean) / self.latent_std

    def unnormalize(
        self, z: Float[Tensor, "row frame channel"]
    ) -> Float[Tensor, "row frame channel"]:
        """Flow latents back to what the VAE decodes."""
        return z * self.latent_std + self.latent_mean

    def condition(self, features: TextFeatures) -> Conditions:
        """Project text features; differentiable, and the same at every noise level."""
        tokens, pooled = features.tokens.to(self.dtype), features.pooled.to(self.dtype)
        return Conditions(self.text_in(tokens), self.pooled_in(pooled))

    def at_times(
        self, t: Float[Tensor, " row"], r: Float[Tensor, " row"] | None
    ) -> Float[Tensor, "row hidden"]:
        """Embed the noise level, and the level that a mean velocity leads to (None: t itself)."""
        embedded: Tensor = self.timestep(t)
        if not self.config.mean_velocity:
            assert r is None, "this network knows one time"
            return embedded
        reached: Tensor = self.end_timestep(t if r is None else r)
        return embedded + reached

    def empty_features(self, num_rows: int) -> TextFeatures:
        """Give the features that stand for no prompt, once per row (a view, not copies)."""
        return TextFeatures(
            self.empty_tokens.expand(num_rows, -1, -1), self.empty_pooled.expand(num_rows, -1)
        )


class FlowTransformer(FlowEnds):
    """Joint blocks of latents and text, then single blocks of latents [arXiv:2403.03206]."""

    recompute_blocks: bool
    """Keep only what goes into a block for the backward pass and compute the rest again: a third
    more time, a fraction of the memory [gradient checkpointing, arXiv:1604.06174]."""

    def __init__(self, config: FlowTransformerConfig) -> None:
        super().__init__(config)
        self.recompute_blocks = False
        initialise(self)
        embeddings = [self.timestep, *([self.end_timestep] if config.mean_velocity else [])]
        for embedding in embeddings:
            for linear in (embedding.inner, embedding.outer):
                nn.init.normal_(linear.weight, std=TIMESTEP_INIT_STD)

    def _make_blocks(self) -> None:
        config = self.config
        hidden, heads, ratio = config.hidden, config.num_heads, config.mlp_ratio
        last_joint = config.num_joint_blocks - 1
        self.joint_blocks = nn.ModuleList(
            JointBlock(hidden, heads, ratio, last=index == last_joint)
            for index in range(config.num_joint_blocks)
        )
        self.single_blocks = nn.ModuleList(
            SingleBlock(hidden, heads, ratio, kernel=3) for _ in range(config.num_single_blocks)
        )

    def forward(
        self,
        z: Float[Tensor, "row frame channel"],
        t: Float[Tensor, " row"],
        conditions: Conditions,
        r: Float[Tensor, " row"] | None = None,
    ) -> Float[Tensor, "row frame channel"]:
        """Predict the velocity noise − data, or its mean on the way from t down to r.

        Args:
            z: normalised latents at noise level t, in any dtype, which the velocity gets too.
            t: noise level in [0, 1], 1 = noise.
            conditions: projected prompts, one per row.
            r: noise level in [0, t], for networks with a second time; None is t itself.

        Raises:
            InputError: more frames than the positions were made for.
        """
        check_num_frames(z.shape[1], self.config)
        latent_angles = rotary_angles(z.shape[1], self.config.head_dim, z.device)
        text = conditions.tokens
        text_angles = rotary_angles(text.shape[1], self.config.head_dim, z.device)
        condition = self.at_times(t, r) + conditions.pooled
        latents = self.latent_in(z.to(self.dtype))
        for joint in self.joint_blocks:
            latents, text = self._run(joint, latents, text, condition, latent_angles, text_angles)
        for single in self.single_blocks:
            latents = self._run(single, latents, condition, latent_angles)
        return self.from_output(self.head(latents, condition), z, t)

    def _run(self, block: nn.Module, *inputs: Tensor) -> Any:
        if self.recompute_blocks and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


def with_second_time(plain: FlowTransformer) -> FlowTransformer:
    """Give a plain flow transformer's weights a second time that does not matter yet.

    Its embedding ends in zeros, so that the mean velocity over any stretch begins as the velocity
    at the stretch's noisy end.

    Returns:
        A new network with a copy of the weights.
    """
    assert not plain.config.mean_velocity, "it has a second time"
    network = FlowTransformer(plain.config.model_copy(update={"mean_velocity": True}))
    outer = network.end_timestep.outer
    nn.init.zeros_(outer.weight)
    state = network.state_dict() | plain.state_dict()
    network.load_state_dict(state)
    return network.to(plain.latent_mean.device, plain.dtype)


def check_num_frames(num_frames: int, config: FlowTransformerConfig) -> None:
    """Refuse clips longer than the model was built for.

    Raises:
        InputError: naming both lengths.
    """
    if num_frames > config.max_frames:
        raise InputError(
            f"{num_frames} latent frames: this model takes up to {config.max_frames}; "
            "ask for a shorter duration"
        )
