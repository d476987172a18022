"""BigVGAN: mel to waveform by transposed convolutions and anti-aliased periodic activations.

[arXiv:2206.04658]. Inference only, weight norm folded. Version 1 ends in a biased convolution and
tanh, version 2 in an unbiased one and a clamp.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from jaxtyping import Float
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from resonate_audio.core.config import NetworkConfig
from resonate_audio.model.antialiased_snake import REACH_SAMPLES, AntialiasedSnake
from resonate_audio.model.tiling import run_tiled

OUTER_TAPS = 7
BUFFER_BYTES = 32 << 20
"""Largest buffer in host memory: the allocator maps and unmaps anything bigger at every layer,
which was half of the time of a 10 s clip."""


class BigVGANConfig(NetworkConfig):
    """Sizes of a BigVGAN generator."""

    kind: Literal["bigvgan"] = "bigvgan"
    version: Literal[1, 2]
    sample_rate_hz: PositiveInt
    num_bands: PositiveInt
    initial_channels: PositiveInt = 1536
    upsample_rates: tuple[PositiveInt, ...]
    upsample_kernels: tuple[PositiveInt, ...]
    block_kernels: tuple[PositiveInt, ...] = (3, 7, 11)
    dilations: tuple[PositiveInt, ...] = (1, 3, 5)

    @model_validator(mode="after")
    def _stages_match(self) -> BigVGANConfig:
        rates, kernels = self.upsample_rates, self.upsample_kernels
        if len(rates) != len(kernels) or not rates:
            raise ValueError(f"{len(rates)} upsample_rates, {len(kernels)} upsample_kernels")
        if any(
            kernel < rate or (kernel - rate) % 2
            for kernel, rate in zip(kernels, rates, strict=True)
        ):
            raise ValueError(
                f"upsample_kernels {kernels} for rates {rates}: expected an even excess"
            )
        if self.initial_channels % (1 << len(rates)):
            raise ValueError(
                f"initial_channels {self.initial_channels}: expected a multiple of "
                f"{1 << len(rates)}, one halving a stage"
            )
        return self

    @property
    def hop_samples(self) -> int:
        """Samples for one mel hop."""
        return math.prod(self.upsample_rates)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels before the first stage and after each."""
        return tuple(
            self.initial_channels >> stage for stage in range(len(self.upsample_rates) + 1)
        )

    @property
    def halo_hops(self) -> int:
        """Mel hops to either side that a hop's samples depend on.

        The samples [0, hop) are followed back through every layer to the hops they read.
        """
        first, last = 0, self.hop_samples - 1
        reach = OUTER_TAPS // 2 + REACH_SAMPLES
        for rate, kernel in zip(
            self.upsample_rates[::-1], self.upsample_kernels[::-1], strict=True
        ):
            reach += max(_block_reach(taps, self.dilations) for taps in self.block_kernels)
            pad = (kernel - rate) // 2
            # Transposed convolution: sample n reads inputs i with 0 <= n + pad − rate·i < kernel.
            first = -((kernel - 1 - pad - first + reach) // rate)
            last, reach = (last + reach + pad) // rate, 0
        return max(-first, last) + OUTER_TAPS // 2


def _block_reach(taps: int, dilations: tuple[int, ...]) -> int:
    return sum(2 * REACH_SAMPLES + (taps // 2) * (dilation + 1) for dilation in dilations)


class BigVGAN(nn.Module):
    """Log-mel to waveform, hops × hop_samples samples in [-1, 1]."""

    def __init__(self, config: BigVGANConfig) -> None:
        super().__init__()
        self.config = config
        self.sample_rate_hz = config.sample_rate_hz
        self.hop_samples = config.hop_samples
        self.halo_hops = config.halo_hops
        widths = config.widths
        self.conv_pre = nn.Conv1d(config.num_bands, widths[0], OUTER_TAPS, padding=OUTER_TAPS // 2)
        self.stages = nn.ModuleList(Stage(config, index) for index in range(len(widths) - 1))
        self.act_post = AntialiasedSnake(widths[-1])
        self.conv_post = nn.Conv1d(
            widths[-1], 1, OUTER_TAPS, padding=OUTER_TAPS // 2, bias=config.version == 1
        )

    def cast_convs(self, dtype: torch.dtype) -> BigVGAN:
        """Run the convolutions in ``dtype``; activations and their parameters stay float32."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                module.to(dtype)
        return self

    @torch.no_grad()
    def forward(self, mel: Float[Tensor, "row band hop"]) -> Float[Tensor, "row sample"]:
        """Synthesise float32 samples; in host memory a long mel is done in tiles."""
        if mel.device.type != "cpu":
            return self._vocode(mel)
        sample_bytes = self.conv_pre.weight.element_size() * self.config.widths[-1] * len(mel)
        most_hops = BUFFER_BYTES // (sample_bytes * self.hop_samples)
        if mel.shape[-1] <= most_hops:
            return self._vocode(mel)
        # Tiles of one size: none is mostly halo.
        num_tiles = -(-mel.shape[-1] // max(most_hops - 2 * self.halo_hops, self.halo_hops))
        return self.vocode_tiled(mel, -(-mel.shape[-1] // num_tiles))

    @torch.no_grad()
    def vocode_tiled(
        self, mel: Float[Tensor, "row band hop"], tile_hops: int
    ) -> Float[Tensor, "row sample"]:
        """Synthesise tile by tile: the same samples, in memory bounded by the tile."""
        return run_tiled(self._vocode, mel, tile_hops, self.halo_hops, self.hop_samples)

    def _vocode(self, mel: Tensor) -> Tensor:
        x = self.conv_pre(mel.to(self.conv_pre.weight.dtype))
        for stage in self.stages:
            x = stage(x)
        samples: Tensor = self.conv_post(self.act_post(x, in_place=True)).float()[:, 0]
        return samples.tanh() if self.config.version == 1 else samples.clamp(-1, 1)


class Stage(nn.Module):
    """Transposed convolution, then the mean of residual blocks of different kernel sizes."""

    def __init__(self, config: BigVGANConfig, index: int) -> None:
        super().__init__()
        before, width = config.widths[index : index + 2]
        rate, kernel = config.upsample_rates[index], config.upsample_kernels[index]
        self.up = nn.ConvTranspose1d(before, width, kernel, rate, padding=(kernel - rate) // 2)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, taps, config.dilations) for taps in config.block_kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (row, channel, sample) to (row, channel / 2, rate · sample)."""
        x = self.up(x)
        first, *others = self.blocks
        total: Tensor = first(x)
        for block in others:
            total += block(x)
        return total.div_(len(self.blocks))


class ResidualBlock(nn.Module):
    """Residual steps of growing dilation."""

    def __init__(self, width: int, taps: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(ResidualStep(width, taps, dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Map (row, channel, sample) to the same shape, leaving ``x`` alone."""
        for step in self.steps:
            x = step(x)
        return x


class ResidualStep(nn.Module):
    """Activation, dilated convolution, activation, convolution, on the residual."""

    def __init__(self, width: int, taps: int, dilation: int) -> None:
        super().__init__()
        self.act1 = AntialiasedSnake(width)
        self.conv1 = nn.Conv1d(
            width, width, taps, padding=dilation * (taps // 2), dilation=dilation
        )
        self.act2 = AntialiasedSnake(width)
        self.conv2 = nn.Conv1d(width, width, taps, padding=taps // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (row, channel, sample) to the same shape, leaving ``x`` alone."""
        new = self.act2(self.conv1(self.act1(x)), in_place=True)
        return cast(Tensor, self.conv2(new)).add_(x)
