"""The blocks of the flow transformer: joint (latents with text) and single (latents alone)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resonate_audio.model.attention import HeadProjection, HeadVectors, attend
from resonate_audio.model.products import (
    gated_unit,
    in_products,
    modulated,
    padded,
    position_products,
    residual,
)

MLP_MULTIPLE = 256
BLOCK_KERNEL = 3
END_KERNEL = 7


def gated_mlp_width(hidden: int, ratio: float) -> int:
    """Inner width of the gated MLP: 2/3 · ratio · hidden, rounded up to a multiple of 256."""
    return -(-int(2 * (ratio * hidden) / 3) // MLP_MULTIPLE) * MLP_MULTIPLE


class FrameConv(nn.Conv1d):
    """Convolution over frames of (row, frame, channel), zero-padded to keep the length."""

    def __init__(self, num_in: int, num_out: int, kernel: int, bias: bool = True) -> None:
        super().__init__(num_in, num_out, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Float[Tensor, "row frame num_in"]) -> Float[Tensor, "row frame num_out"]:
        """Convolve along frames."""
        return super().forward(x.mT).mT


def position_map(num_in: int, num_out: int, kernel: int, bias: bool = True) -> nn.Module:
    """Make a linear map that sees ``kernel`` neighbouring positions; 1 gives a plain linear."""
    if kernel == 1:
        return nn.Linear(num_in, num_out, bias=bias)
    return FrameConv(num_in, num_out, kernel, bias=bias)


class GatedMLP(nn.Module):
    """down(silu(gate x) ⊙ up x), three bias-free maps [arXiv:2002.05202, eq. 6]."""

    def __init__(self, hidden: int, ratio: float, kernel: int) -> None:
        super().__init__()
        width = gated_mlp_width(hidden, ratio)
        self.gate = position_map(hidden, width, kernel, bias=False)
        self.up = position_map(hidden, width, kernel, bias=False)
        self.down = position_map(width, hidden, kernel, bias=False)

    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """Apply the MLP at every position."""
        out: Tensor = self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return out


def mlp_products(
    mlp: GatedMLP, x: Float[Tensor, "row padded hidden"], pad: int
) -> Float[Tensor, "row padded hidden"]:
    """Apply a gated MLP whose maps see ``pad`` positions on either side to padded positions.

    The last 2·pad positions of the result mean nothing.
    """
    inner = gated_unit(position_products(x, mlp.gate, mlp.up), 2 * pad, pad)
    return position_products(inner, mlp.down)


class LatentProjection(nn.Module):
    """Latents to hidden width: convolution → SELU → gated MLP, all over 7 frames."""

    def __init__(self, num_in: int, hidden: int, ratio: float) -> None:
        super().__init__()
        self.linear = FrameConv(num_in, hidden, END_KERNEL)
        self.mlp = GatedMLP(hidden, ratio, END_KERNEL)

    def forward(self, z: Float[Tensor, "row frame channel"]) -> Float[Tensor, "row frame hidden"]:
        """Project latents."""
        if in_products(z):
            return self._in_products(z)
        out: Tensor = self.mlp(nn.functional.selu(self.linear(z)))
        return out

    def _in_products(
        self, z: Float[Tensor, "row frame channel"]
    ) -> Float[Tensor, "row frame hidden"]:
        pad = END_KERNEL // 2
        projected = position_products(padded(z, pad), self.linear)[:, : z.shape[1]]
        inner = padded(nn.functional.selu(projected), pad)
        return mlp_products(self.mlp, inner, pad)[:, : z.shape[1]]


class TextProjection(nn.Module):
    """Text features to hidden width: linear → gated MLP."""

    def __init__(self, num_in: int, hidden: int, ratio: float) -> None:
        super().__init__()
        self.linear = nn.Linear(num_in, hidden)
        self.mlp = GatedMLP(hidden, ratio, kernel=1)

    def forward(self, features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch hidden"]:
        """Project text features."""
        out: Tensor = self.mlp(self.linear(features))
        return out


def modulate(
    x: Float[Tensor, "row position hidden"],
    shift: Float[Tensor, "row hidden"],
    scale: Float[Tensor, "row hidden"],
) -> Float[Tensor, "row position hidden"]:
    """Normalise each position, then scale and shift: LN(x)·(1 + scale) + shift (adaLN).

    [arXiv:2212.09748, sec. 3.2]
    """
    normed = nn.functional.layer_norm(x, x.shape[-1:])
    return normed * (1 + scale[:, None]) + shift[:, None]


def modulate_for_heads(
    x: Float[Tensor, "row position hidden"],
    shift: Float[Tensor, "row hidden"],
    scale: Float[Tensor, "row hidden"],
) -> Float[Tensor, "row position hidden"]:
    """`modulate` in the form that the products of a head want."""
    return modulated(x, shift, scale, 0) if in_products(x) else modulate(x, shift, scale)


class Modulation(nn.Module):
    """SiLU → linear → as many (row, hidden) vectors as asked for; zero at the start."""

    def __init__(self, hidden: int, num_vectors: int) -> None:
        super().__init__()
        self.num_vectors = num_vectors
        self.linear = nn.Linear(hidden, num_vectors * hidden)

    def forward(
        self, condition: Float[Tensor, "row hidden"]
    ) -> tuple[Float[Tensor, "row hidden"], ...]:
        """Read the vectors off the condition."""
        vectors: Tensor = self.linear(nn.functional.silu(condition))
        return vectors.chunk(self.num_vectors, dim=-1)


class StreamModulation(NamedTuple):
    """What the condition does to one stream in one block (zero-gated twice in adaLN-Zero)."""

    attention_shift: Float[Tensor, "row hidden"]
    attention_scale: Float[Tensor, "row hidden"]
    attention_gate: Float[Tensor, "row hidden"]
    mlp_shift: Float[Tensor, "row hidden"]
    mlp_scale: Float[Tensor, "row hidden"]
    mlp_gate: Float[Tensor, "row hidden"]


class Stream(nn.Module):
    """One stream of a block: what stands before attention, and what follows it."""

    def __init__(self, hidden: int, num_heads: int, ratio: float, kernel: int) -> None:
        super().__init__()
        self.pad = kernel // 2
        self.modulation = Modulation(hidden, len(StreamModulation._fields))
        self.heads = HeadProjection(hidden, num_heads)
        self.attention_out = position_map(hidden, hidden, kernel)
        self.mlp = GatedMLP(hidden, ratio, kernel)

    def modulate(self, condition: Float[Tensor, "row hidden"]) -> StreamModulation:
        """Read shifts, scales and gates off the condition."""
        return StreamModulation(*self.modulation(condition))

    def before(
        self,
        x: Float[Tensor, "row position hidden"],
        modulation: StreamModulation,
        angles: Float[Tensor, "position pair"],
    ) -> HeadVectors:
        """Give queries, keys and values."""
        normed = modulate_for_heads(x, modulation.attention_shift, modulation.attention_scale)
        vectors: HeadVectors = self.heads(normed, angles)
        return vectors

    def after(
        self,
        x: Float[Tensor, "row position hidden"],
        attended: Float[Tensor, "row position hidden"],
        modulation: StreamModulation,
    ) -> Float[Tensor, "row position hidden"]:
        """Add what attention found, then what the MLP makes of it."""
        if in_products(x):
            return self._after_in_products(x, attended, modulation)
        x = x + modulation.attention_gate[:, None] * self.attention_out(attended)
        normed = modulate(x, modulation.mlp_shift, modulation.mlp_scale)
        out: Tensor = x + modulation.mlp_gate[:, None] * self.mlp(normed)
        return out

    def _after_in_products(
        self,
        x: Float[Tensor, "row position hidden"],
        attended: Float[Tensor, "row position hidden"],
        modulation: StreamModulation,
    ) -> Float[Tensor, "row position hidden"]:
        found = position_products(padded(attended, self.pad), self.attention_out)
        x = residual(x, found, modulation.attention_gate)
        normed = modulated(x, modulation.mlp_shift, modulation.mlp_scale, self.pad)
        return residual(x, mlp_products(self.mlp, normed, self.pad), modulation.mlp_gate)


class ReadOnlyStream(nn.Module):
    """A stream that is attended to and then dropped: the text of the last joint block."""

    def __init__(self, hidden: int, num_heads: int) -> None:
        super().__init__()
        self.modulation = Modulation(hidden, 2)
        self.heads = HeadProjection(hidden, num_heads)

    def before(
        self,
        x: Float[Tensor, "row position hidden"],
        condition: Float[Tensor, "row hidden"],
        angles: Float[Tensor, "position pair"],
    ) -> HeadVectors:
        """Give queries, keys and values."""
        normed = modulate_for_heads(x, *self.modulation(condition))
        vectors: HeadVectors = self.heads(normed, angles)
        return vectors


class JointBlock(nn.Module):
    """Latents and text attend to each other, each with weights of its own (MMDiT).

    [arXiv:2403.03206, fig. 2]
    """

    def __init__(self, hidden: int, num_heads: int, ratio: float, last: bool) -> None:
        super().__init__()
        self.latents = Stream(hidden, num_heads, ratio, BLOCK_KERNEL)
        self.text: Stream | ReadOnlyStream = (
            ReadOnlyStream(hidden, num_heads)
            if last
            else Stream(hidden, num_heads, ratio, kernel=1)
        )

    def forward(
        self,
        latents: Float[Tensor, "row frame hidden"],
        text: Float[Tensor, "row token hidden"],
        condition: Float[Tensor, "row hidden"],
        latent_angles: Float[Tensor, "frame pair"],
        text_angles: Float[Tensor, "token pair"],
    ) -> tuple[Float[Tensor, "row frame hidden"], Float[Tensor, "row token hidden"]]:
        """Update both streams; a read-only text stream comes back as it went in."""
        latent_mod = self.latents.modulate(condition)
        latent_heads = self.latents.before(latents, latent_mod, latent_angles)
        split = [latents.shape[1], text.shape[1]]
        if isinstance(self.text, ReadOnlyStream):
            text_heads = self.text.before(text, condition, text_angles)
            for_latents, _ = torch.split(attend(latent_heads, text_heads), split, dim=1)
        else:
            text_mod = self.text.modulate(condition)
            text_heads = self.text.before(text, text_mod, text_angles)
            for_latents, for_text = torch.split(attend(latent_heads, text_heads), split, dim=1)
            text = self.text.after(text, for_text, text_mod)
        return self.latents.after(latents, for_latents, latent_mod), text


class SingleBlock(Stream):
    """Latents attend to themselves (DiT, arXiv:2212.09748)."""

    def forward(
        self,
        latents: Float[Tensor, "row frame hidden"],
        condition: Float[Tensor, "row hidden"],
        angles: Float[Tensor, "frame pair"],
    ) -> Float[Tensor, "row frame hidden"]:
        """Update the latents."""
        modulation = self.modulate(condition)
        return self.after(latents, attend(self.before(latents, modulation, angles)), modulation)


class VelocityHead(nn.Module):
    """Final modulation and a 7-frame convolution to latent channels; zero at the start."""

    def __init__(self, hidden: int, num_out: int) -> None:
        super().__init__()
        self.modulation = Modulation(hidden, 2)
        self.conv = FrameConv(hidden, num_out, END_KERNEL)

    def forward(
        self,
        latents: Float[Tensor, "row frame hidden"],
        condition: Float[Tensor, "row hidden"],
    ) -> Float[Tensor, "row frame channel"]:
        """Read the velocity off the latents."""
        if in_products(latents):
            shift, scale = self.modulation(condition)
            normed = modulated(latents, shift, scale, END_KERNEL // 2)
            return position_products(normed, self.conv)[:, : latents.shape[1]]
        out: Tensor = self.conv(modulate(latents, *self.modulation(condition)))
        return out


def initialise(module: nn.Module) -> None:
    """Set the starting weights: Xavier linears, zero biases, and nothing flows until trained.

    adaLN maps and the output convolution start at zero, so every block is the identity and the
    velocity is zero [adaLN-Zero, arXiv:2212.09748, sec. 3.2]; the other convolutions keep
    PyTorch's default.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, Modulation):
            torch.nn.init.zeros_(part.linear.weight)
        if isinstance(part, VelocityHead):
            nn.init.zeros_(part.conv.weight)
            assert part.conv.bias is not None
            nn.init.zeros_(part.conv.bias)
