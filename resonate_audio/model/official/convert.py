"""Published checkpoints, recognised by their names, sized by their shapes, loaded strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.bigvgan import BigVGAN, BigVGANConfig
from resonate_audio.model.checkpoint import State, load_strict, read_weights
from resonate_audio.model.flow_transformer import FlowTransformer, FlowTransformerConfig
from resonate_audio.model.official.bigvgan import convert_bigvgan_state
from resonate_audio.model.official.flow import from_official
from resonate_audio.model.official.vae import convert_vae_state
from resonate_audio.model.vae import MelVAE, VAEConfig

ConfigT = TypeVar("ConfigT")
NetworkT = TypeVar("NetworkT", bound=nn.Module)
Part = Literal["transformer", "vae", "vocoder"]
SIGNATURES: dict[str, Part] = {
    "joint_blocks.": "transformer",
    "decoder.conv_in.": "vae",
    "conv_pre.": "vocoder",
}
"""How a name begins that only one of the published networks has."""
PREFIXES = ("module.", "_orig_mod.")
"""What distributed training and compilation put before every name."""
RATES_HZ = {1: 16_000, 2: 44_100}
"""Sample rate of each BigVGAN version that is used."""


def read_official(path: Path, mapped: bool = False) -> tuple[Part, State]:
    """Read a published file and say which network it is.

    Args:
        path: the file.
        mapped: for a look at names and shapes: leave the weights on the disk.

    Raises:
        CheckpointError: it cannot be read, or is none of the published networks.
    """
    state = without_prefix(read_weights(path, mapped))
    for start, part in SIGNATURES.items():
        if any(name.startswith(start) for name in state):
            return part, state
    raise CheckpointError(
        f"{path}: neither a flow transformer, nor a mel VAE, nor a BigVGAN "
        f"(its first tensor is {next(iter(state))})"
    )


def without_prefix(state: State) -> State:
    """Names without what wrappers put before every one of them."""
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def load_official(part: Part, state: State, source: str) -> nn.Module:
    """Build the network with the sizes that the shapes tell, and give it every tensor.

    Args:
        part: which network.
        state: what ``read_official`` gave; emptied on the way, so that no weight is there twice.
        source: what messages call the file.

    Raises:
        CheckpointError: names the first tensor that is missing, unexpected or misshapen.
        ConfigError: the shapes are not those of any such network.
    """
    load = {"transformer": load_flow, "vae": load_vae, "vocoder": load_bigvgan}[part]
    return load(state, source)


def official_config(part: Part, state: Mapping[str, Tensor], source: str) -> Any:
    """Sizes of a published network, from its shapes.

    Raises:
        CheckpointError: a tensor that tells them is missing.
        ConfigError: the shapes are not those of any such network.
    """
    read = {"transformer": flow_config, "vae": vae_config, "vocoder": bigvgan_config}[part]
    return read(state, source)


def load_flow(state: State, source: str) -> FlowTransformer:
    """Load a published flow transformer, such as ``Resonate_PT.pth``."""
    config = flow_config(state, source)
    return _load(FlowTransformer, config, from_official(drained(state)), source)


def load_vae(state: State, source: str) -> MelVAE:
    """Load a published mel VAE, such as ``v1-44.pth``, with its weights normalised once."""
    config = vae_config(state, source)
    return _load(MelVAE, config, convert_vae_state(drained(state), config), source)


def load_bigvgan(state: State, source: str) -> BigVGAN:
    """Load a published BigVGAN generator, its weight norm folded."""
    config = bigvgan_config(state, source)
    return _load(BigVGAN, config, convert_bigvgan_state(state, config), source)


def drained(state: State) -> Iterator[tuple[str, Tensor]]:
    """Every entry, in float32, taken out of ``state`` as it is given."""
    for name in list(state):
        value = state.pop(name)
        yield name, value.float() if value.is_floating_point() else value


def _load(
    make: Callable[[ConfigT], NetworkT], config: ConfigT, state: Mapping[str, Tensor], source: str
) -> NetworkT:
    with torch.device("meta"):
        network = make(config)
    load_strict(network, state, source, assign=True)
    return network.eval()


def flow_config(state: Mapping[str, Tensor], source: str) -> FlowTransformerConfig:
    """Sizes of a published flow transformer, from its shapes; the MLP ratio is always 4."""
    hidden = _shape(state, "audio_input_proj.0.weight", source)[0]
    num_tokens, text_dim = _shape(state, "empty_string_feat", source)
    pooled_dim = _shape(state, "text_cond_proj.0.weight", source)[1]
    head_dim = _shape(state, "joint_blocks.0.latent_block.attn.q_norm.weight", source)[0]
    return FlowTransformerConfig(
        latent_channels=_shape(state, "latent_mean", source)[-1],
        hidden=hidden,
        num_heads=hidden // head_dim,
        num_joint_blocks=_count(state, "joint_blocks"),
        num_single_blocks=_count(state, "fused_blocks"),
        text_dim=text_dim,
        pooled_dim=pooled_dim,
        num_text_tokens=num_tokens,
        mean_velocity=any(name.startswith("r_embed.mlp.") for name in state),
    )


def vae_config(state: Mapping[str, Tensor], source: str) -> VAEConfig:
    """Sizes of a published mel VAE, from its shapes."""
    hidden, num_bands, _ = _shape(state, "encoder.conv_in.weight", source)
    moments = _shape(state, "encoder.conv_out.weight", source)[0]
    return VAEConfig(num_bands=num_bands, latent_channels=moments // 2, hidden=hidden)


def bigvgan_config(state: Mapping[str, Tensor], source: str) -> BigVGANConfig:
    """Sizes of a published BigVGAN, from its shapes.

    Every published one up-samples by half of the kernel, has dilations 1, 3, 5, and only
    version 1 has a bias in its last convolution.
    """
    initial, num_bands, _ = _weight_shape(state, "conv_pre", source)
    stages = range(_count(state, "ups"))
    kernels = tuple(_weight_shape(state, f"ups.{stage}.0", source)[2] for stage in stages)
    num_blocks = _count(state, "resblocks") // max(1, len(kernels))
    version: Literal[1, 2] = 1 if "conv_post.bias" in state else 2
    return BigVGANConfig(
        version=version,
        sample_rate_hz=RATES_HZ[version],
        num_bands=num_bands,
        initial_channels=initial,
        upsample_rates=tuple(kernel // 2 for kernel in kernels),
        upsample_kernels=kernels,
        block_kernels=tuple(
            _weight_shape(state, f"resblocks.{block}.convs1.0", source)[2]
            for block in range(num_blocks)
        ),
    )


def _shape(state: Mapping[str, Tensor], name: str, source: str) -> tuple[int, ...]:
    if name not in state:
        raise CheckpointError(f"{source}: {name} is missing ({len(state)} tensors found)")
    return tuple(state[name].shape)


def _weight_shape(state: Mapping[str, Tensor], layer: str, source: str) -> tuple[int, ...]:
    """Shape of a layer's weight in any spelling of weight norm."""
    for name in ("weight", "weight_v", "parametrizations.weight.original1"):
        if f"{layer}.{name}" in state:
            return tuple(state[f"{layer}.{name}"].shape)
    raise CheckpointError(f"{source}: {layer}.weight is missing ({len(state)} tensors found)")


def _count(state: Mapping[str, Tensor], container: str) -> int:
    """How many numbered children a container has."""
    matches = (re.match(rf"{container}\.(\d+)\.", name) for name in state)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)
