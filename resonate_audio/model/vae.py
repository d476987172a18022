"""Mel VAE: a 1-D convolutional autoencoder whose every layer preserves magnitude (EDM2).

Norms follow "Analyzing and Improving the Training Dynamics of Diffusion Models"
[arXiv:2312.02696, app. B]: weights have unit norm per output filter, activations unit mean square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from resonate_audio.core.config import NetworkConfig
from resonate_audio.core.errors import ShapeError
from resonate_audio.model.tiling import run_tiled

NORM_EPS = 1e-4
SILU_GAIN = 0.596
"""Root mean square of silu(x) for standard-normal x."""
RESIDUAL_SHARE = 0.3
"""Share of the new branch in every residual sum."""
ACTIVATION_LIMIT = 256.0
LOG_VARIANCE_RANGE = (-30.0, 20.0)


class VAEConfig(NetworkConfig):
    """Sizes of the mel VAE."""

    kind: Literal["conv"] = "conv"
    num_bands: PositiveInt
    latent_channels: PositiveInt
    hidden: PositiveInt
    """Width of the first level, channels."""
    multipliers: tuple[PositiveInt, ...] = Field((1, 2, 4), min_length=1)
    """Width of each level, in units of ``hidden``."""
    num_res_blocks: PositiveInt = 2
    """Residual blocks of a level; the decoder has one more."""
    down_levels: tuple[int, ...] = (0,)
    """Levels after which the encoder halves the frame rate."""

    @model_validator(mode="after")
    def _levels_exist(self) -> VAEConfig:
        last = len(self.multipliers) - 2
        if len(set(self.down_levels)) < len(self.down_levels) or not all(
            0 <= level <= last for level in self.down_levels
        ):
            raise ValueError(
                f"down_levels {self.down_levels}: expected distinct levels from 0 to {last}"
            )
        return self

    @property
    def hops_per_frame(self) -> int:
        """Mel hops of one latent frame."""
        return 1 << len(self.down_levels)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.hidden * multiplier for multiplier in self.multipliers)


@dataclass(frozen=True)
class Posterior:
    """Diagonal normal over latents."""

    mean: Float[Tensor, "row frame channel"]
    log_variance: Float[Tensor, "row frame channel"]

    @property
    def std(self) -> Float[Tensor, "row frame channel"]:
        """Standard deviation."""
        return (0.5 * self.log_variance).exp()

    def sample(
        self, generator: torch.Generator | None = None
    ) -> Float[Tensor, "row frame channel"]:
        """Draw latents, differentiable in mean and variance (reparametrised)."""
        noise = torch.randn(
            self.mean.shape,
            generator=generator,
            device=self.mean.device,
            dtype=self.mean.dtype,
        )
        return self.mean + self.std * noise

    def kl(self) -> Float[Tensor, " row"]:
        """KL divergence to the standard normal, nats, mean over frames and channels."""
        variance = self.log_variance.exp()
        terms = 0.5 * (self.mean.square() + variance - 1 - self.log_variance)
        return terms.mean(dim=(1, 2))


class MelVAE(nn.Module):
    """Log-mel to latents at a lower frame rate, and back.

    ``state_dict`` remembers whether the weights are raw or folded (buffer ``folded``), because
    normalising twice is not the same as once: the second pass divides by 1 + 1e-4·√n.
    """

    data_mean: Tensor
    data_std: Tensor
    folded: Tensor

    def __init__(self, config: VAEConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("data_mean", torch.zeros(1, config.num_bands, 1))
        self.register_buffer("data_std", torch.ones(1, config.num_bands, 1))
        self.register_buffer("folded", torch.tensor(False))
        self.reset_parameters(generator)
        self.register_load_state_dict_post_hook(_read_folded_flag)  # type: ignore[no-untyped-call]

    @property
    def hops_per_frame(self) -> int:
        """Mel hops of one latent frame."""
        return self.config.hops_per_frame

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw raw weights from the standard normal; their scale has no effect on the output."""
        for conv in self._convs():
            nn.init.normal_(conv.weight, generator=generator)
            conv.folded = False

    @torch.no_grad()
    def set_data_statistics(
        self, mean: Float[Tensor, " band"], std: Float[Tensor, " band"]
    ) -> None:
        """Set the per-band constants that bring log-mels to mean 0 and deviation 1."""
        self.data_mean.copy_(mean[None, :, None])
        self.data_std.copy_(std[None, :, None])

    @torch.no_grad()
    def fold_weight_norm(self) -> None:
        """Normalise every weight once and for all, for inference; a second call does nothing."""
        for conv in self._convs():
            conv.fold()
        self.folded.fill_(True)

    def encode(self, mel: Float[Tensor, "row band hop"]) -> Posterior:
        """Encode log-mels.

        Args:
            mel: log-mel; hops beyond the last whole latent frame are dropped by the pooling, after
                they have been seen by the first convolutions.

        Returns:
            Posterior over hops // hops_per_frame latent frames.

        Raises:
            ShapeError: fewer hops than one latent frame.
        """
        if mel.shape[-1] < self.hops_per_frame:
            raise ShapeError(
                f"mel of {mel.shape[-1]} hops: a latent frame needs {self.hops_per_frame}"
            )
        return self.encode_normalized((mel - self.data_mean) / self.data_std)

    def encode_normalized(self, mel: Float[Tensor, "row band hop"]) -> Posterior:
        """Encode mels that are already in units of the per-band deviation."""
        mean, log_variance = self.encoder(mel).transpose(1, 2).chunk(2, dim=-1)
        return Posterior(mean, log_variance.clamp(*LOG_VARIANCE_RANGE))

    def decode(self, latents: Float[Tensor, "row frame channel"]) -> Float[Tensor, "row band hop"]:
        """Decode latents to log-mels of frames × hops_per_frame hops."""
        return self.decode_normalized(latents) * self.data_std + self.data_mean

    def decode_tiled(
        self, latents: Float[Tensor, "row frame channel"], tile_frames: int
    ) -> Float[Tensor, "row band hop"]:
        """Decode with memory bounded by the tile: the same mel as :meth:`decode`.

        The attention sees every frame, so the middle runs whole, at the latent rate, where it is
        small; only the convolutions after it are tiled.
        """
        middle = self.decoder.trunk(latents.transpose(1, 2))
        mel = run_tiled(
            self.decoder.tail,
            middle,
            tile_frames,
            self.decoder.halo_frames,
            self.hops_per_frame,
        )
        return mel * self.data_std + self.data_mean

    def decode_normalized(
        self, latents: Float[Tensor, "row frame channel"]
    ) -> Float[Tensor, "row band hop"]:
        """Decode to mels in units of the per-band deviation."""
        mel: Tensor = self.decoder(latents.transpose(1, 2))
        return mel

    def _convs(self) -> list[MPConv]:
        return [module for module in self.modules() if isinstance(module, MPConv)]


def _read_folded_flag(vae: nn.Module, _keys: Any) -> None:
    # The buffer is what travels; the Python flag is what forward reads without a device sync.
    folded = vae.get_buffer("folded")
    for module in vae.modules():
        if isinstance(module, MPConv) and not folded.is_meta:
            module.folded = bool(folded)


class MPConv(nn.Module):
    """Bias-free convolution whose filters have unit norm: w / (ε + ‖w‖/√n) / √n, n inputs each.

    Raw weights are normalised in the forward, so gradients go through the norm; a folded one holds
    the result.
    """

    def __init__(self, num_inputs: int, num_outputs: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs, kernel))
        self.folded = False

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (row, channel, frame), same length."""
        return F.conv1d(x, self.unit_weight().to(x.dtype), padding=self.weight.shape[-1] // 2)

    def unit_weight(self) -> Tensor:
        """The weight as it is applied."""
        return self.weight if self.folded else unit_filters(self.weight)

    @torch.no_grad()
    def fold(self) -> None:
        """Keep the normalised weight; a second call does nothing."""
        if not self.folded:
            self.weight.copy_(unit_filters(self.weight))
            self.folded = True


def unit_filters(weight: Float[Tensor, "filter input tap"]) -> Float[Tensor, "filter input tap"]:
    """Bring each output filter to unit norm: w / (ε + rms(w)) / √n  [EDM2 eq. 47 and 66]."""
    fan_in = weight[0].numel()
    rms = torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True, dtype=torch.float32)
    unit: Tensor = weight / (NORM_EPS + rms / math.sqrt(fan_in)) / math.sqrt(fan_in)
    return unit.to(weight.dtype)


def unit_channels(x: Float[Tensor, "*axes"], dim: int = 1) -> Float[Tensor, "*axes"]:
    """Divide by the root mean square over ``dim``, plus ε ("pixel norm")."""
    rms = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    scale: Tensor = NORM_EPS + rms / math.sqrt(x.shape[dim])
    return x / scale.to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """SiLU scaled to keep unit variance [EDM2 eq. 81]."""
    return F.silu(x) / SILU_GAIN


def mp_sum(old: Tensor, new: Tensor) -> Tensor:
    """((1−s)·old + s·new) / √((1−s)² + s²), s the residual share [EDM2 eq. 88]."""
    scale = math.hypot(1 - RESIDUAL_SHARE, RESIDUAL_SHARE)
    return torch.lerp(old, new, RESIDUAL_SHARE) / scale


def _limit(x: Tensor) -> Tensor:
    return x.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


class ResBlock(nn.Module):
    """Pixel norm, then two activated convolutions beside the (normed) shortcut."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.conv1 = MPConv(num_inputs, num_outputs, 3)
        self.conv2 = MPConv(num_outputs, num_outputs, 3)
        self.shortcut = (
            MPConv(num_inputs, num_outputs, 1) if num_inputs != num_outputs else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (row, channel, frame) to (row, output channel, frame)."""
        x = unit_channels(x)
        new = self.conv2(mp_silu(self.conv1(mp_silu(x))))
        return mp_sum(cast(Tensor, self.shortcut(x)), new)


class MidAttention(nn.Module):
    """One-head attention over all frames; q, k and v have unit channels.

    The channels of ``qkv`` are laid out (channel, 3): q, k and v alternate.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = MPConv(width, 3 * width, 1)
        self.out = MPConv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the frames of (row, channel, frame)."""
        qkv = self.qkv(x).unflatten(1, (-1, 3))
        q, k, v = unit_channels(qkv).transpose(1, 3).unbind(2)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return mp_sum(x, self.out(mixed.transpose(1, 2)))


class Middle(nn.Module):
    """Block, attention, block, at the lowest rate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block1 = ResBlock(width, width)
        self.attention = MidAttention(width)
        self.block2 = ResBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (row, channel, frame) to the same shape."""
        return _limit(self.block2(self.attention(self.block1(x))))


class Downsample(nn.Module):
    """Halve the frames: 1×1, mean of pairs (an odd last one is dropped), 1×1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = MPConv(width, width, 1)
        self.conv2 = MPConv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (row, channel, frame) to (row, channel, frame // 2)."""
        return cast(Tensor, self.conv2(F.avg_pool1d(self.conv1(x), 2)))


class Upsample(nn.Module):
    """Double the frames: repeat each, then a 3-tap convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = MPConv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (row, channel, frame) to (row, channel, 2·frame)."""
        return cast(Tensor, self.conv(x.repeat_interleave(2, dim=-1)))


class Level(nn.Module):
    """Residual blocks of one width, then a change of rate or none."""

    def __init__(
        self, num_inputs: int, num_outputs: int, num_blocks: int, resample: nn.Module
    ) -> None:
        super().__init__()
        widths = [num_inputs] + [num_outputs] * num_blocks
        self.blocks = nn.ModuleList(ResBlock(before, after) for before, after in pairwise(widths))
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        """Map (row, channel, frame)."""
        for block in self.blocks:
            x = _limit(block(x))
        return cast(Tensor, self.resample(x))


class Encoder(nn.Module):
    """Mel (row, band, hop) to moments (row, 2·channel, frame)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = MPConv(config.num_bands, widths[0], 3)
        inputs = (widths[0], *widths[:-1])
        self.levels = nn.ModuleList(
            Level(
                inputs[level],
                width,
                config.num_res_blocks,
                Downsample(width) if level in config.down_levels else nn.Identity(),
            )
            for level, width in enumerate(widths)
        )
        self.middle = Middle(widths[-1])
        self.conv_out = MPConv(widths[-1], 2 * config.latent_channels, 3)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised mels to mean and log-variance, stacked on the channels."""
        x = self.conv_in(x)
        for level in self.levels:
            x = level(x)
        moments: Tensor = self.conv_out(mp_silu(self.middle(x))) * (1 + self.gain)
        return moments


class Decoder(nn.Module):
    """Latents (row, channel, frame) to mel (row, band, hop); ``levels`` run widest first."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = MPConv(config.latent_channels, widths[-1], 3)
        self.middle = Middle(widths[-1])
        inputs = (*widths[1:], widths[-1])
        self.levels = nn.ModuleList(
            Level(
                inputs[level],
                widths[level],
                config.num_res_blocks + 1,
                # The encoder halves after level i, so the decoder doubles after level i + 1.
                Upsample(widths[level]) if level - 1 in config.down_levels else nn.Identity(),
            )
            for level in reversed(range(len(widths)))
        )
        self.conv_out = MPConv(widths[0], config.num_bands, 3)
        self.gain = nn.Parameter(torch.zeros(()))

    @property
    def halo_frames(self) -> int:
        """Latent frames to either side that an output of :meth:`tail` depends on."""
        reach = 1
        for level in reversed(self.levels):
            assert isinstance(level, Level)
            if isinstance(level.resample, Upsample):
                reach = -(-(reach + 1) // 2)
            reach += 2 * len(level.blocks)
        return reach

    def forward(self, x: Tensor) -> Tensor:
        """Map latents to normalised mels."""
        return self.tail(self.trunk(x))

    def trunk(self, x: Tensor) -> Tensor:
        """The part that sees every frame, at the latent rate."""
        return cast(Tensor, self.middle(self.conv_in(x)))

    def tail(self, x: Tensor) -> Tensor:
        """The part that sees ``halo_frames`` to each side: levels and output."""
        for level in self.levels:
            x = level(x)
        mel: Tensor = self.conv_out(mp_silu(x)) * (1 + self.gain)
        return mel
