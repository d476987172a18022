"""Low-rank adapters on the linear maps of a network, put in place by peft."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import ConfigError
from resonate_audio.model.adapter import LowRank
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.training.loop.distributed import plain_state

ADAPTER = "default"
"""peft's own name for the only adapter."""


class LoraSettings(FrozenConfig):
    """W + (α / r)·B·A with A (r, in) and B (out, r)          [arXiv:2106.09685, sec. 4.1]."""

    rank: int = Field(16, ge=1, le=65_536)
    alpha: float = Field(32.0, gt=0)
    targets: str = r".*(qkv|modulation\.linear|linear)"
    """Regular expression that the whole name of an adapted linear map matches.

    By default attention, modulation and text projections; convolutions keep their weights."""


def add_lora(model: nn.Module, settings: LoraSettings) -> None:
    """Freeze every weight and put adapters beside the targets, in place; B starts at zero.

    Raises:
        ConfigError: peft is not installed, or no linear map has such a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("lora: needs peft; pip install 'resonate-audio[train]'") from error
    model.requires_grad_(False)
    linears = {n for n, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    names = sorted(name for name in linears if config_matches(settings.targets, name))
    if not names:
        raise ConfigError(f"lora.targets {settings.targets!r}: no linear map has such a name")
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=names)
    inject_adapter_in_model(config, model)


def config_matches(pattern: str, name: str) -> bool:
    """Whether a module's whole name matches.

    Raises:
        ConfigError: the pattern is no regular expression.
    """
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise ConfigError(f"lora.targets {pattern!r}: not a regular expression") from error


@contextmanager
def without_lora(model: nn.Module) -> Iterator[None]:
    """Compute as if there were no adapters: the model before training."""
    layers = adapter_layers(model)
    for layer in layers.values():
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers.values():
            layer.enable_adapters(True)


def adapter_layers(model: nn.Module) -> dict[str, Any]:
    """Adapted maps by their names; empty for a model without adapters."""
    return {name: part for name, part in model.named_modules() if hasattr(part, "lora_A")}


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """Weights under their plain names, adapters added in; the model itself stays as it is."""
    state = {
        name.replace(".base_layer.", "."): value.detach().clone()
        for name, value in plain_state(model).items()
        if ".lora_" not in name
    }
    for name, layer in adapter_layers(model).items():
        state[f"{name}.weight"] += layer.get_delta_weight(ADAPTER).to(state[f"{name}.weight"])
    return state


@torch.no_grad()
def low_rank(model: nn.Module) -> dict[str, LowRank]:
    """A and B of every adapted map by its name, the scale α / r in B."""
    return {
        name: (
            layer.lora_A[ADAPTER].weight.detach().clone(),
            layer.lora_B[ADAPTER].weight.detach() * layer.scaling[ADAPTER],
        )
        for name, layer in adapter_layers(model).items()
    }


def plain_copy(model: FlowTransformer) -> FlowTransformer:
    """A model of its own with the weights of one in training, adapters added in."""
    copy = FlowTransformer(model.config)
    copy.load_state_dict(merged_state(model))
    return copy.eval()
