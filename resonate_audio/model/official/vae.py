"""The official mel VAE's state dict, renamed to ours and folded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.vae import VAEConfig, unit_filters

_RENAMES = (
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.mid\.block_(\d)\.", r".middle.block\1."),
    (r"\.mid\.attn_1\.qkv\.", ".middle.attention.qkv."),
    (r"\.mid\.attn_1\.proj_out\.", ".middle.attention.out."),
    (r"\.block\.(\d+)\.", r".blocks.\1."),
    (r"\.(?:downsample|upsample)\.", ".resample."),
    (r"\.learnable_gain$", ".gain"),
    (r"^encoder\.down\.", "encoder.levels."),
)


def our_vae_name(official: str, config: VAEConfig) -> str:
    """Name in :class:`MelVAE` of one entry of the official state dict.

    The decoder's levels are stored narrowest first there and run widest first here.
    """
    name = re.sub(
        r"^decoder\.up\.(\d+)\.",
        lambda match: f"decoder.levels.{len(config.multipliers) - 1 - int(match[1])}.",
        official,
    )
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def convert_vae_state(
    official: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
    config: VAEConfig,
    fold: bool = True,
) -> dict[str, Tensor]:
    """Turn an official VAE state dict into ours.

    Args:
        official: raw (never normalised) weights, as published, or their entries.
        config: sizes, for the number of levels.
        fold: normalise the weights once, as inference needs; false keeps them raw for training.

    Returns:
        A state dict for :class:`MelVAE`, to be loaded strictly.

    Raises:
        CheckpointError: two entries have the same name, or an entry is not floating point.
    """
    state = {"folded": torch.tensor(fold)}
    for name, value in official.items() if isinstance(official, Mapping) else official:
        ours = our_vae_name(name, config)
        if ours in state or not value.is_floating_point():
            raise CheckpointError(f"VAE weights: {name} is not an entry of the official VAE")
        is_filter = value.ndim == 3 and name.endswith(".weight")
        state[ours] = unit_filters(value.float()) if fold and is_filter else value.float()
    return state
