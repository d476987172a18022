"""Low-rank adapters on the linear maps of a network, while they are trained."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import ConfigError
from resonate_audio.model.adapter import LowRank
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.training.loop.distributed import plain_state


class LoraSettings(FrozenConfig):
    """W + (α / r)·B·A with A (r, in) and B (out, r)          [arXiv:2106.09685, sec. 4.1]."""

    rank: int = Field(16, ge=1, le=65_536)
    alpha: float = Field(32.0, gt=0)
    targets: str = r".*(qkv|modulation\.linear|linear)"
    """Regular expression that the whole name of an adapted linear map matches.

    By default attention, modulation and text projections; convolutions keep their weights."""


class AdaptedLinear(nn.Module):
    """A frozen linear map with an adapter beside it: W·x + (α / r)·B·A·x, B zero at the start."""

    def __init__(self, base_layer: nn.Linear, settings: LoraSettings) -> None:
        super().__init__()
        weight = base_layer.weight
        self.base_layer = base_layer
        self.lora_A = nn.Parameter(weight.new_empty(settings.rank, base_layer.in_features))
        self.lora_B = nn.Parameter(weight.new_zeros(base_layer.out_features, settings.rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as torch begins a linear map
        self.scaling = settings.alpha / settings.rank
        self.is_on = True

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out)."""
        result: Tensor = self.base_layer(x)
        if not self.is_on:
            return result
        low = F.linear(x.to(self.lora_A.dtype), self.lora_A)
        return result + self.scaling * F.linear(low, self.lora_B)


def add_lora(model: nn.Module, settings: LoraSettings) -> None:
    """Freeze every weight and put adapters beside the targets, in place; B starts at zero.

    Raises:
        ConfigError: no linear map has such a name.
    """
    model.requires_grad_(False)
    linears = {n: part for n, part in model.named_modules() if isinstance(part, nn.Linear)}
    names = sorted(name for name in linears if config_matches(settings.targets, name))
    if not names:
        raise ConfigError(f"lora.targets {settings.targets!r}: no linear map has such a name")
    for name in names:
        place, _, last = name.rpartition(".")
        setattr(model.get_submodule(place), last, AdaptedLinear(linears[name], settings))


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
        layer.is_on = False
    try:
        yield
    finally:
        for layer in layers.values():
            layer.is_on = True


def adapter_layers(model: nn.Module) -> dict[str, AdaptedLinear]:
    """Adapted maps by their names; empty for a model without adapters."""
    return {name: part for name, part in model.named_modules() if isinstance(part, AdaptedLinear)}


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """Weights under their plain names, adapters added in; the model itself stays as it is."""
    state = {
        name.replace(".base_layer.", "."): value.detach().clone()
        for name, value in plain_state(model).items()
        if ".lora_" not in name
    }
    for name, layer in adapter_layers(model).items():
        weight = state[f"{name}.weight"]
        weight += (layer.scaling * (layer.lora_B @ layer.lora_A)).to(weight)
    return state


@torch.no_grad()
def low_rank(model: nn.Module) -> dict[str, LowRank]:
    """A and B of every adapted map by its name, the scale α / r in B."""
    return {
        name: (
            layer.lora_A.detach().clone(),
            layer.lora_B.detach() * layer.scaling,
        )
        for name, layer in adapter_layers(model).items()
    }


def plain_copy(model: FlowTransformer) -> FlowTransformer:
    """A model of its own with the weights of one in training, adapters added in."""
    copy = FlowTransformer(model.config)
    copy.load_state_dict(merged_state(model))
    return copy.eval()
