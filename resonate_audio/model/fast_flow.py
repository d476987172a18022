"""The flow transformer, rearranged for inference on a CPU.

Same weights, same call, same numbers to float32 rounding; what differs is the order of work:

- 3-tap convolutions (80 % of the network) in Winograd form, with half the multiplications; or,
  in bfloat16 on a processor whose products are fast in it, as three shifted products, since
  there the passes over memory around Winograd's products cost more than they save;
- the MLP's two input maps as one;
- queries, keys and values laid out apart and RoPE on halves, so nothing is gathered;
- attention by PyTorch's fused function in float32, and in bfloat16 where products are fast, with
  keys filled up to whole tiles of the matrix unit; elsewhere in bfloat16 as two batched products;
- each block is three functions with the weights as arguments, so all layers share the code
  that ``torch.compile`` makes of them, once for the whole network.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resonate_audio.core.processor import preferred_dtype
from resonate_audio.model.attention import HeadProjection
from resonate_audio.model.blocks import (
    JointBlock,
    LatentProjection,
    ReadOnlyStream,
    SingleBlock,
    Stream,
)
from resonate_audio.model.embeddings import rotary_angles
from resonate_audio.model.flow_transformer import (
    Conditions,
    FlowEnds,
    FlowTransformer,
    FlowTransformerConfig,
    check_num_frames,
)
from resonate_audio.model.products import RMS_EPS, shifted_products
from resonate_audio.model.winograd import transform_weight, winograd_conv

functional = nn.functional
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
TILE_POSITIONS = 32
"""Keys are filled up to a multiple: others fall out of the fast path of PyTorch's attention."""


class HeadWeights(NamedTuple):
    """Projection to queries, keys and values: output channels (3, head, dim)."""

    weight: Float[Tensor, "qkv hidden"]
    """In bfloat16 a transposed view, since products with it are faster that way."""
    bias: Float[Tensor, " qkv"]
    query_norm: Float[Tensor, " dim"]
    """Holds the 1/√d of the scores as well."""
    key_norm: Float[Tensor, " dim"]


class AfterWeights(NamedTuple):
    """What follows attention; 3-tap maps by Winograd point or by tap, others as (in, out)."""

    attention_out: Float[Tensor, "*point hidden hidden"]
    bias: Float[Tensor, " hidden"]
    gate_up: Float[Tensor, "*point hidden width2"]
    down: Float[Tensor, "*point width hidden"]


class EntryWeights(NamedTuple):
    """From latents to hidden width, by tap."""

    linear: Float[Tensor, "tap channel hidden"]
    bias: Float[Tensor, " hidden"]
    gate_up: Float[Tensor, "tap hidden width2"]
    down: Float[Tensor, "tap width hidden"]


class StreamWeights(NamedTuple):
    """One stream of one block; ``after`` is None where the stream ends."""

    modulation: tuple[Float[Tensor, "vectors hidden"], Float[Tensor, " vectors"]]
    heads: HeadWeights
    after: AfterWeights | None


class Rotation(NamedTuple):
    """Cosines and sines of RoPE."""

    cos: Float[Tensor, "position 1 pair"]
    sin: Float[Tensor, "position 1 pair"]


Modulations = tuple[Float[Tensor, "row 1 hidden"], ...]


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    normed = functional.layer_norm(x.float(), x.shape[-1:])
    return (normed * (1 + scale) + shift).to(x.dtype)


def _norm_and_turn(x: Tensor, weight: Tensor, rotation: Rotation) -> Tensor:
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + RMS_EPS) * weight
    first, second = normed.chunk(2, dim=-1)
    turned = (
        first * rotation.cos - second * rotation.sin,
        first * rotation.sin + second * rotation.cos,
    )
    return torch.cat(turned, dim=-1).to(x.dtype)


def _before(
    x: Tensor, shift: Tensor, scale: Tensor, weights: HeadWeights, rotation: Rotation
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (row, position, head, dim)."""
    head_dim = weights.key_norm.shape[0]
    joined = functional.linear(_modulate(x, shift, scale), weights.weight, weights.bias)
    query, key, value = joined.view(*x.shape[:2], 3, -1, head_dim).unbind(2)
    query = _norm_and_turn(query, weights.query_norm, rotation)
    return query, _norm_and_turn(key, weights.key_norm, rotation), value


def _attend_in_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (part.transpose(1, 2).contiguous() for part in (query, key, value))
    scores = torch.softmax(torch.matmul(query, key.mT).float(), dim=-1)
    return torch.matmul(scores.to(value.dtype), value).transpose(1, 2).flatten(2)


def _attend_fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    attended = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    return attended.transpose(1, 2).flatten(2)


def _attend_in_tiles(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    num_keys = key.shape[1]
    missing = -num_keys % TILE_POSITIONS
    key, value = (functional.pad(part, (0, 0, 0, 0, 0, missing)) for part in (key, value))
    mask = query.new_zeros(1, 1, 1, num_keys + missing)
    mask[..., num_keys:] = -torch.inf
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    attended = functional.scaled_dot_product_attention(query, key, value, mask, scale=1.0)
    return attended.transpose(1, 2).flatten(2)


@torch.library.custom_op(
    "resonate_audio::shifted_products", mutates_args=(), schema="(Tensor x, Tensor w) -> Tensor"
)
def _shifted_products(x: Tensor, w: Tensor) -> Tensor:
    """One call for the compiler, which would copy every partial sum."""
    return shifted_products(x, w)


@_shifted_products.register_fake
def _(x: Tensor, w: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], w.shape[-1])


def _shifted_conv(
    x: Float[Tensor, "row frame num_in"], weight: Float[Tensor, "tap num_in num_out"]
) -> Float[Tensor, "row frame num_out"]:
    """Convolve frames, zero-padded to keep the length, as one product for each tap."""
    pad = weight.shape[0] // 2
    padded = functional.pad(x, (0, 0, pad, pad))
    return cast(Tensor, _shifted_products(padded.contiguous(), weight))[:, : x.shape[1]]


def _after(
    x: Tensor,
    attended: Tensor,
    modulations: Modulations,
    weights: AfterWeights,
    mix: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    attention_gate, shift, scale, mlp_gate = modulations
    x = (x + attention_gate * (mix(attended, weights.attention_out) + weights.bias)).to(x.dtype)
    updated = _mlp(_modulate(x, shift, scale), weights.gate_up, weights.down, mix)
    return (x + mlp_gate * updated).to(x.dtype)


def _mlp(
    x: Tensor, gate_up: Tensor, down: Tensor, mix: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    gate, up = mix(x, gate_up).chunk(2, dim=-1)
    return mix((functional.silu(gate) * up).to(x.dtype), down)


def _after_latents(
    x: Tensor, attended: Tensor, modulations: Modulations, weights: AfterWeights
) -> Tensor:
    return _after(x, attended, modulations, weights, winograd_conv)


def _after_latents_shifted(
    x: Tensor, attended: Tensor, modulations: Modulations, weights: AfterWeights
) -> Tensor:
    return _after(x, attended, modulations, weights, _shifted_conv)


def _enter(z: Tensor, weights: EntryWeights) -> Tensor:
    x = functional.selu(_shifted_conv(z, weights.linear) + weights.bias)
    return _mlp(x, weights.gate_up, weights.down, _shifted_conv)


def _after_text(
    x: Tensor, attended: Tensor, modulations: Modulations, weights: AfterWeights
) -> Tensor:
    return _after(x, attended, modulations, weights, torch.matmul)


@dataclass(frozen=True)
class Kernels:
    """The functions that every layer shares, compiled or as they are."""

    before: Callable[..., tuple[Tensor, Tensor, Tensor]]
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    after_latents: Callable[[Tensor, Tensor, Modulations, AfterWeights], Tensor]
    after_text: Callable[[Tensor, Tensor, Modulations, AfterWeights], Tensor]
    enter: Callable[[Tensor, EntryWeights], Tensor] | None
    """Of latents, in the form of shifted products; else a module does it."""


def prefers_shifts(dtype: torch.dtype) -> bool:
    """Whether products in ``dtype`` are so fast here that convolutions are shifted products."""
    return dtype == torch.bfloat16 and preferred_dtype("cpu") == dtype


def can_compile() -> bool:
    """Whether ``torch.compile`` finds what it needs here: a C++ compiler and Python's headers."""
    has_compiler = any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    return has_compiler and (Path(sysconfig.get_path("include")) / "Python.h").is_file()


def make_kernels(dtype: torch.dtype, compile: bool, shifts: bool) -> Kernels:
    """Choose the functions for a dtype, and compile if that is wanted and possible."""
    wanted = compile and can_compile()

    def maybe_compiled(function: FunctionT) -> FunctionT:
        return cast(FunctionT, torch.compile(function)) if wanted else function

    # A fused call leaves nothing that a compiler could add.
    attend = _attend_fused if dtype == torch.float32 else maybe_compiled(_attend_in_products)
    return Kernels(
        before=maybe_compiled(_before),
        attend=_attend_in_tiles if shifts else attend,
        after_latents=maybe_compiled(_after_latents_shifted if shifts else _after_latents),
        after_text=maybe_compiled(_after_text),
        enter=maybe_compiled(_enter) if shifts else None,
    )


class FastFlowTransformer(FlowEnds):
    """Velocity of a trained flow transformer, about 1.6 times as fast on a CPU in float32.

    For inference alone: its blocks have no parameters, and it stays where it was made. In
    Winograd form it takes twice the room of the convolutions it replaces (3.0 GB in float32 at
    full size), as shifted products the same room.
    """

    def __init__(self, config: FlowTransformerConfig, kernels: Kernels) -> None:
        super().__init__(config)
        self.kernels = kernels
        self.entry: EntryWeights | None = None
        self.joint_blocks: list[tuple[StreamWeights, StreamWeights]] = []
        self.single_blocks: list[StreamWeights] = []

    @classmethod
    def from_model(
        cls,
        model: FlowTransformer,
        dtype: torch.dtype | None = None,
        compile: bool = True,
        release: bool = False,
        shifts: bool | None = None,
    ) -> FastFlowTransformer:
        """Rearrange a model's weights.

        Args:
            model: a trained model; weights that need no rearranging are shared with it.
            dtype: of weights and activations; None keeps that of ``model``.
            compile: compile the shared functions on first use (a minute once, then kept on disk
                by PyTorch) where the machine can; otherwise they run as they are.
            release: take the blocks' weights away from ``model`` one by one, which keeps the
                peak of memory low; ``model`` cannot run after that.
            shifts: convolutions as shifted products, not in Winograd form; None is what the
                measured rates of this processor ask for.
        """
        dtype = dtype or model.dtype
        shifts = prefers_shifts(dtype) if shifts is None else shifts
        with torch.device("meta"):
            fast = cls(model.config, make_kernels(dtype, compile, shifts))
        ends = {name: value for name, value in model.state_dict().items() if "blocks" not in name}
        fast.load_state_dict(_cast(ends, dtype), assign=True)
        fast.requires_grad_(False).eval()
        if shifts:
            fast.entry = _rearrange_entry(model.latent_in, dtype)
        for joint in model.joint_blocks:
            assert isinstance(joint, JointBlock)
            latents, text = (rearrange(part, dtype, shifts) for part in (joint.latents, joint.text))
            fast.joint_blocks.append((latents, text))
            release_weights(joint) if release else None
        for single in model.single_blocks:
            assert isinstance(single, SingleBlock)
            fast.single_blocks.append(rearrange(single, dtype, shifts))
            release_weights(single) if release else None
        return fast

    @torch.inference_mode()
    def forward(
        self,
        z: Float[Tensor, "row frame channel"],
        t: Float[Tensor, " row"],
        conditions: Conditions,
        r: Float[Tensor, " row"] | None = None,
    ) -> Float[Tensor, "row frame channel"]:
        """Predict the velocity noise − data, as ``FlowTransformer.forward`` does.

        Raises:
            InputError: more frames than the positions were made for.
        """
        check_num_frames(z.shape[1], self.config)
        condition = self.at_times(t, r) + conditions.pooled
        active = functional.silu(condition)
        latents, text = self._enter(z.to(self.dtype)), conditions.tokens
        latent_turn, text_turn = (self._rotation(x) for x in (latents, text))
        for of_latents, of_text in self.joint_blocks:
            latents, text = self._joint(
                (latents, of_latents, latent_turn), (text, of_text, text_turn), active
            )
        for weights in self.single_blocks:
            vectors, rest = self._before(latents, weights, latent_turn, active)
            latents = self._after(latents, self.kernels.attend(*vectors), rest, weights)
        return self.from_output(self.head(latents, condition), z, t)

    def _enter(self, z: Tensor) -> Tensor:
        if self.entry is None or self.kernels.enter is None:
            projected: Tensor = self.latent_in(z)
            return projected
        return self.kernels.enter(z, self.entry)

    def _joint(
        self,
        latents: tuple[Tensor, StreamWeights, Rotation],
        text: tuple[Tensor, StreamWeights, Rotation],
        active: Tensor,
    ) -> tuple[Tensor, Tensor]:
        latent_vectors, latent_rest = self._before(*latents, active)
        text_vectors, text_rest = self._before(*text, active)
        joined = (torch.cat(pair, dim=1) for pair in zip(latent_vectors, text_vectors, strict=True))
        lengths = [latents[0].shape[1], text[0].shape[1]]
        # Contiguous as in single blocks: one stride for all, so no recompilation.
        to_latents, to_text = (
            part.contiguous() for part in torch.split(self.kernels.attend(*joined), lengths, dim=1)
        )
        return (
            self._after(latents[0], to_latents, latent_rest, latents[1]),
            self._after(text[0], to_text, text_rest, text[1]),
        )

    def _before(
        self, x: Tensor, weights: StreamWeights, rotation: Rotation, active: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Modulations]:
        """Queries, keys and values, and the modulations that are still to come."""
        joined = functional.linear(active, *weights.modulation)
        # (vector, row, 1, hidden), contiguous: one stride for all blocks, so no recompilation.
        vectors = joined.view(len(active), -1, 1, active.shape[1]).transpose(0, 1).contiguous()
        shift, scale, *rest = vectors.unbind(0)
        return self.kernels.before(x, shift, scale, weights.heads, rotation), tuple(rest)

    def _after(
        self, x: Tensor, attended: Tensor, modulations: Modulations, weights: StreamWeights
    ) -> Tensor:
        if weights.after is None:
            return x
        is_latents = weights.after.down.dim() == 3
        after = self.kernels.after_latents if is_latents else self.kernels.after_text
        return after(x, attended, modulations, weights.after)

    def _rotation(self, x: Tensor) -> Rotation:
        angles = rotary_angles(x.shape[1], self.config.head_dim, x.device)[:, None]
        return Rotation(angles.cos(), angles.sin())


@torch.no_grad()
def release_weights(block: nn.Module) -> None:
    """Take a block's weights out of memory.

    The C library keeps pieces of some megabytes for later, and few of the new form's fit into
    them; asked block by block, it gives them back (0.7 GB at full size).
    """
    block.to("meta")
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # musl has none
        trim(0)


def rearrange(stream: Stream | ReadOnlyStream, dtype: torch.dtype, shifts: bool) -> StreamWeights:
    """Lay the weights of one stream out for inference; shared where nothing changes."""
    linear = stream.modulation.linear
    after = None if isinstance(stream, ReadOnlyStream) else _rearrange_after(stream, dtype, shifts)
    return StreamWeights(
        (linear.weight.detach().to(dtype), linear.bias.detach().to(dtype)),
        _rearrange_heads(stream.heads, dtype),
        after,
    )


def _rearrange_heads(heads: HeadProjection, dtype: torch.dtype) -> HeadWeights:
    head_dim = heads.qkv.in_features // heads.num_heads
    weight = heads.qkv.weight.view(heads.num_heads, head_dim, 3, -1)
    bias = heads.qkv.bias.view(heads.num_heads, head_dim, 3)
    # Pairs that turn together stand in the two halves; scores do not see the order.
    halves = torch.cat([torch.arange(0, head_dim, 2), torch.arange(1, head_dim, 2)])
    orders = (halves, halves, torch.arange(head_dim))
    joined = torch.stack([weight[:, order, i] for i, order in enumerate(orders)]).flatten(0, 2)
    joined = joined.to(dtype)
    return HeadWeights(
        joined.mT.contiguous().mT if dtype == torch.bfloat16 else joined,
        torch.stack([bias[:, order, i] for i, order in enumerate(orders)]).flatten().to(dtype),
        heads.query_norm.weight[halves].float() * head_dim**-0.5,
        heads.key_norm.weight[halves].float(),
    )


def _rearrange_after(stream: Stream, dtype: torch.dtype, shifts: bool) -> AfterWeights:
    out, mlp = stream.attention_out.state_dict(), stream.mlp.state_dict()
    gate_up = torch.cat([mlp["gate.weight"], mlp["up.weight"]])
    return AfterWeights(
        _as_factor(out["weight"], dtype, shifts),
        out["bias"].to(dtype),
        _as_factor(gate_up, dtype, shifts),
        _as_factor(mlp["down.weight"], dtype, shifts),
    )


@torch.no_grad()
def _rearrange_entry(entry: LatentProjection, dtype: torch.dtype) -> EntryWeights:
    mlp, bias = entry.mlp.state_dict(), entry.linear.bias
    assert bias is not None
    return EntryWeights(
        _as_factor(entry.linear.weight, dtype, shifts=True),
        bias.to(dtype),
        _as_factor(torch.cat([mlp["gate.weight"], mlp["up.weight"]]), dtype, shifts=True),
        _as_factor(mlp["down.weight"], dtype, shifts=True),
    )


def _as_factor(weight: Tensor, dtype: torch.dtype, shifts: bool) -> Tensor:
    """The right factor of a product: Winograd form or a matrix each tap; transposed if linear."""
    if weight.dim() == 2:
        return weight.mT.contiguous().to(dtype)
    factor = weight.permute(2, 1, 0) if shifts else transform_weight(weight.float())
    return factor.to(dtype).contiguous()


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.detach().to(dtype) for name, value in state.items()}
