"""The flow transformer, rearranged for inference on a CPU.

Same weights, same call, same numbers to float32 rounding; what differs is the order of work:

- 3-tap convolutions in Winograd form (half the multiplications of 80 % of the network), the
  MLP's two input maps as one;
- queries, keys and values laid out apart and RoPE on halves, so nothing is gathered;
- in bfloat16, attention as two batched products: PyTorch's fused one is slower on CPUs;
- each block is three functions with the weights as arguments, so all layers share the code
  that ``torch.compile`` makes of them, once for the whole network.
"""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resonate_audio.model.attention import HeadProjection
from resonate_audio.model.blocks import JointBlock, ReadOnlyStream, SingleBlock, Stream
from resonate_audio.model.embeddings import rotary_angles
from resonate_audio.model.flow_transformer import (
    Conditions,
    FlowEnds,
    FlowTransformer,
    FlowTransformerConfig,
    check_num_frames,
)
from resonate_audio.model.products import RMS_EPS
from resonate_audio.model.winograd import transform_weight, winograd_conv

functional = nn.functional
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class HeadWeights(NamedTuple):
    """Projection to queries, keys and values: output channels (3, head, dim)."""

    weight: Float[Tensor, "qkv hidden"]
    bias: Float[Tensor, " qkv"]
    query_norm: Float[Tensor, " dim"]
    """Holds the 1/√d of the scores as well."""
    key_norm: Float[Tensor, " dim"]


class AfterWeights(NamedTuple):
    """What follows attention; 3-tap maps in Winograd form, one-tap maps as (in, out)."""

    attention_out: Float[Tensor, "*point hidden hidden"]
    bias: Float[Tensor, " hidden"]
    gate_up: Float[Tensor, "*point hidden width2"]
    down: Float[Tensor, "*point width hidden"]


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


def _after(
    x: Tensor,
    attended: Tensor,
    modulations: Modulations,
    weights: AfterWeights,
    mix: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    attention_gate, shift, scale, mlp_gate = modulations
    x = (x + attention_gate * (mix(attended, weights.attention_out) + weights.bias)).to(x.dtype)
    gate, up = mix(_modulate(x, shift, scale), weights.gate_up).chunk(2, dim=-1)
    inner = (functional.silu(gate) * up).to(x.dtype)
    return (x + mlp_gate * mix(inner, weights.down)).to(x.dtype)


def _after_latents(
    x: Tensor, attended: Tensor, modulations: Modulations, weights: AfterWeights
) -> Tensor:
    return _after(x, attended, modulations, weights, winograd_conv)


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


def can_compile() -> bool:
    """Whether ``torch.compile`` finds what it needs here: a C++ compiler and Python's headers."""
    has_compiler = any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    return has_compiler and (Path(sysconfig.get_path("include")) / "Python.h").is_file()


def make_kernels(dtype: torch.dtype, compile: bool) -> Kernels:
    """Choose the form of attention for a dtype, and compile if that is wanted and possible."""
    wanted = compile and can_compile()

    def maybe_compiled(function: FunctionT) -> FunctionT:
        return cast(FunctionT, torch.compile(function)) if wanted else function

    # float32: one fused call, which a compiler has nothing to add to.
    attend = _attend_fused if dtype == torch.float32 else maybe_compiled(_attend_in_products)
    return Kernels(
        before=maybe_compiled(_before),
        attend=attend,
        after_latents=maybe_compiled(_after_latents),
        after_text=maybe_compiled(_after_text),
    )


class FastFlowTransformer(FlowEnds):
    """Velocity of a trained flow transformer, about 1.6 times as fast on a CPU in float32.

    For inference alone: its blocks have no parameters, and it stays where it was made. Takes
    twice the room of the convolutions it replaces (2.4 GB in float32 at full size).
    """

    def __init__(self, config: FlowTransformerConfig, kernels: Kernels) -> None:
        super().__init__(config)
        self.kernels = kernels
        self.joint_blocks: list[tuple[StreamWeights, StreamWeights]] = []
        self.single_blocks: list[StreamWeights] = []

    @classmethod
    def from_model(
        cls,
        model: FlowTransformer,
        dtype: torch.dtype | None = None,
        compile: bool = True,
        release: bool = False,
    ) -> FastFlowTransformer:
        """Rearrange a model's weights.

        Args:
            model: a trained model; weights that need no rearranging are shared with it.
            dtype: of weights and activations; None keeps that of ``model``.
            compile: compile the shared functions on first use (a minute once, then kept on disk
                by PyTorch) where the machine can; otherwise they run as they are.
            release: take the blocks' weights away from ``model`` one by one, which keeps the
                peak of memory low; ``model`` cannot run after that.
        """
        dtype = dtype or model.dtype
        with torch.device("meta"):
            fast = cls(model.config, make_kernels(dtype, compile))
        ends = {name: value for name, value in model.state_dict().items() if "blocks" not in name}
        fast.load_state_dict(_cast(ends, dtype), assign=True)
        fast.requires_grad_(False).eval()
        for joint in model.joint_blocks:
            assert isinstance(joint, JointBlock)
            pair = rearrange(joint.latents, dtype), rearrange(joint.text, dtype)
            fast.joint_blocks.append(pair)
            joint.to("meta") if release else None
        for single in model.single_blocks:
            assert isinstance(single, SingleBlock)
            fast.single_blocks.append(rearrange(single, dtype))
            single.to("meta") if release else None
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
        latents, text = self.latent_in(z.to(self.dtype)), conditions.tokens
        latent_turn, text_turn = (self._rotation(x) for x in (latents, text))
        for of_latents, of_text in self.joint_blocks:
            latents, text = self._joint(
                (latents, of_latents, latent_turn), (text, of_text, text_turn), active
            )
        for weights in self.single_blocks:
            vectors, rest = self._before(latents, weights, latent_turn, active)
            latents = self._after(latents, self.kernels.attend(*vectors), rest, weights)
        return self.from_output(self.head(latents, condition), z, t)

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
        to_latents, to_text = torch.split(self.kernels.attend(*joined), lengths, dim=1)
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
def rearrange(stream: Stream | ReadOnlyStream, dtype: torch.dtype) -> StreamWeights:
    """Lay the weights of one stream out for inference; shared where nothing changes."""
    linear = stream.modulation.linear
    after = None if isinstance(stream, ReadOnlyStream) else _rearrange_after(stream, dtype)
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
    return HeadWeights(
        torch.stack([weight[:, order, i] for i, order in enumerate(orders)])
        .flatten(0, 2)
        .to(dtype),
        torch.stack([bias[:, order, i] for i, order in enumerate(orders)]).flatten().to(dtype),
        heads.query_norm.weight[halves].float() * head_dim**-0.5,
        heads.key_norm.weight[halves].float(),
    )


def _rearrange_after(stream: Stream, dtype: torch.dtype) -> AfterWeights:
    out, mlp = stream.attention_out.state_dict(), stream.mlp.state_dict()
    gate_up = torch.cat([mlp["gate.weight"], mlp["up.weight"]])
    return AfterWeights(
        _as_factor(out["weight"], dtype),
        out["bias"].to(dtype),
        _as_factor(gate_up, dtype),
        _as_factor(mlp["down.weight"], dtype),
    )


def _as_factor(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The right factor of a product: Winograd form of 3 taps, or the transpose of one."""
    factor = transform_weight(weight.float()) if weight.dim() == 3 else weight.mT.contiguous()
    return factor.to(dtype)


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.detach().to(dtype) for name, value in state.items()}
