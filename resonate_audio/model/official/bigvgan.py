"""The official BigVGAN state dicts, weight norm folded, renamed to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.antialiased_snake import kaiser_sinc_filter
from resonate_audio.model.bigvgan import BigVGANConfig

# Weight norm in the order gain, direction: torch's parametrizations, then the older hook.
_WEIGHT_NORMS = (
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    (".weight_g", ".weight_v"),
)
_FILTER_NAME = re.compile(
    r"^(?:resblocks\.\d+\.activations\.\d+|activation_post)"
    r"\.(?:upsample|downsample\.lowpass)\.filter$"
)


def bigvgan_config(
    settings: Mapping[str, Any], version: int, sample_rate_hz: int, source: str = "config.json"
) -> BigVGANConfig:
    """Read the sizes from the published ``config.json`` of a BigVGAN.

    Raises:
        ConfigError: a size is missing or is one that this implementation does not have.
    """
    dilations = {tuple(row) for row in settings.get("resblock_dilation_sizes", ())}
    values = {
        "version": version,
        "sample_rate_hz": settings.get("sampling_rate", sample_rate_hz),
        "num_bands": settings.get("num_mels"),
        "initial_channels": settings.get("upsample_initial_channel"),
        "upsample_rates": settings.get("upsample_rates"),
        "upsample_kernels": settings.get("upsample_kernel_sizes"),
        "block_kernels": settings.get("resblock_kernel_sizes"),
        "dilations": next(iter(dilations)) if len(dilations) == 1 else None,
    }
    return parse_config(BigVGANConfig, values, source)


def convert_bigvgan_state(official: Mapping[str, Any], config: BigVGANConfig) -> dict[str, Tensor]:
    """Turn an official generator's state dict into ours.

    Accepts the three spellings of weight norm (parametrizations, ``weight_g``/``weight_v``,
    plain), with or without the ``generator`` key that version 1 files are wrapped in.

    Args:
        official: what the file holds.
        config: sizes, for the number of blocks in a stage.

    Returns:
        A state dict for :class:`BigVGAN`, to be loaded strictly.

    Raises:
        CheckpointError: half of a weight norm is missing, a filter is not the one this network
            has built in, or a name is not BigVGAN's.
    """
    entries = official.get("generator", official)
    state: dict[str, Tensor] = {}
    for name, value in fold_weight_norm(entries).items():
        if _FILTER_NAME.match(name):
            _check_filter(name, value)
        else:
            state[our_bigvgan_name(name, config)] = value
    return state


def fold_weight_norm(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each gain g and direction v by the weight g · v / ‖v‖, the norm over all but axis 0.

    Raises:
        CheckpointError: a gain without its direction, or the reverse.
    """
    plain: dict[str, Tensor] = {}
    for name, value in entries.items():
        for gain, direction in _WEIGHT_NORMS:
            if name.endswith(gain):
                base = name.removesuffix(gain)
                plain[f"{base}.weight"] = _weight(value, entries.get(base + direction), name)
                break
            if name.endswith(direction):
                if name.removesuffix(direction) + gain not in entries:
                    raise CheckpointError(f"BigVGAN weights: {name} has no gain beside it")
                break
        else:
            plain[name] = value.float()
    return plain


def _weight(gain: Tensor, direction: Tensor | None, name: str) -> Tensor:
    if direction is None:
        raise CheckpointError(f"BigVGAN weights: {name} has no direction beside it")
    return fold_weight(gain.float(), direction.float())


def fold_weight(
    gain: Float[Tensor, "axis0 1 1"], direction: Float[Tensor, "axis0 axis1 tap"]
) -> Float[Tensor, "axis0 axis1 tap"]:
    """Weight g · v / ‖v‖, one norm for each index of axis 0 [arXiv:1602.07868, eq. 2]."""
    norm: Tensor = torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True)
    return direction * (gain / norm)


def our_bigvgan_name(official: str, config: BigVGANConfig) -> str:
    """Name in :class:`BigVGAN` of one entry of the official (plain) state dict.

    There, blocks are numbered through all stages and activations through a block; here a stage
    holds its blocks and a step its two activations.
    """
    name = official.replace(".act.alpha", ".log_alpha").replace(".act.beta", ".log_beta")
    name = name.replace("activation_post.", "act_post.")
    name = re.sub(r"^ups\.(\d+)\.0\.", r"stages.\1.up.", name)
    match = re.match(r"^resblocks\.(\d+)\.(convs1|convs2|activations)\.(\d+)\.(.+)$", name)
    if match is None:
        return name
    stage, block = divmod(int(match[1]), len(config.block_kernels))
    if match[2] == "activations":
        step, second = divmod(int(match[3]), 2)
        part = f"act{second + 1}"
    else:
        step, part = int(match[3]), f"conv{match[2][-1]}"
    return f"stages.{stage}.blocks.{block}.steps.{step}.{part}.{match[4]}"


def _check_filter(name: str, value: Tensor) -> None:
    expected = kaiser_sinc_filter()
    if value.numel() != expected.numel() or not torch.allclose(
        value.flatten().float().cpu(), expected, atol=1e-4
    ):
        raise CheckpointError(
            f"BigVGAN weights: {name} is not the 12-tap half-band filter of the official networks"
        )
