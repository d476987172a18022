"""Adapters: low-rank changes of a flow transformer in a small file of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resonate_audio.core.errors import CheckpointError, InputError
from resonate_audio.core.paths import given_path
from resonate_audio.model.checkpoint import (
    fingerprint_weights,
    read_metadata,
    read_weights,
    write_weights,
)
from resonate_audio.model.flow_transformer import FlowTransformer

ADAPTER_NAME = "adapter.safetensors"
"""In the export of a training."""
A_NAME, B_NAME = ".lora_A.weight", ".lora_B.weight"
BASE, BASE_FINGERPRINT = "resonate_base", "resonate_base_fingerprint"
"""Metadata: what the model was called that the adapter was trained beside, and its hash."""
LARGEST_WEIGHT = 10.0

LowRank = tuple[Float[Tensor, "_ _"], Float[Tensor, "_ _"]]
"""A (rank, input) and B (output, rank) of one linear map; alpha over rank is in B."""


@dataclass(frozen=True)
class Adapter:
    """W + weight · B·A for some linear maps          [LoRA, arXiv:2106.09685, sec. 4.1]."""

    path: Path
    weight: float
    maps: Mapping[str, LowRank]
    base: str
    base_fingerprint: str

    def __str__(self) -> str:
        """As `read_adapter` takes it from anywhere."""
        whole = str(self.path.resolve())
        return whole if self.weight == 1 else f"{whole}:{self.weight!r}"


def read_adapter(text: str | Path) -> Adapter:
    """Read ``FILE`` or ``FILE:weight``.

    Raises:
        CheckpointError: there is no such file, or it is no adapter.
        InputError: the weight is out of range.
    """
    path, weight = split_weight(str(text))
    path = given_path(path)
    state = read_weights(path)
    names = {key.removesuffix(A_NAME) for key in state if key.endswith(A_NAME)}
    if not names or set(state) != {n + part for n in names for part in (A_NAME, B_NAME)}:
        raise CheckpointError(
            f"{path}: no adapter; expected pairs of …{A_NAME} and …{B_NAME}, as "
            "`resonate train sft --lora` writes them"
        )
    maps = {name: (state[name + A_NAME].float(), state[name + B_NAME].float()) for name in names}
    told = read_metadata(path)
    return Adapter(path, weight, maps, told.get(BASE, ""), told.get(BASE_FINGERPRINT, ""))


def split_weight(text: str) -> tuple[Path, float]:
    """A file and how strongly it is wanted, 1 unless a number follows a colon.

    Raises:
        InputError: the number is out of range.
    """
    file, colon, number = text.rpartition(":")
    try:
        weight = float(number) if colon and file else math.nan
    except ValueError:  # C:\file, or a colon in a name
        return Path(text), 1.0
    if not colon or not file:
        return Path(text), 1.0
    if not abs(weight) <= LARGEST_WEIGHT:
        raise InputError(
            f"adapter {text}: expected a weight from {-LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}"
        )
    return Path(file), weight


@torch.no_grad()
def add_adapters(transformer: FlowTransformer, adapters: Sequence[Adapter], name: str) -> None:
    """Add adapters to the weights of the model that they were trained beside, in place.

    Args:
        transformer: without any adapter so far.
        adapters: added one after the other.
        name: what the model is called, for errors.

    Raises:
        CheckpointError: an adapter is of another model, or does not fit; names both.
    """
    own = fingerprint_weights([transformer.state_dict()]) if adapters else ""
    linears = linear_maps(transformer)
    for adapter in adapters:
        check_fit(adapter, linears, own, name)
        for place, (a, b) in sorted(adapter.maps.items()):
            weight = linears[place].weight
            weight += adapter.weight * (b @ a).to(weight)


def join_adapters(adapters: Sequence[Adapter]) -> dict[str, LowRank]:
    """One adapter that changes a model as several together do: its rank is the sum of theirs."""
    parts: dict[str, list[LowRank]] = {}
    for adapter in adapters:
        for name, (a, b) in adapter.maps.items():
            parts.setdefault(name, []).append((a, adapter.weight * b))
    return {
        name: (torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs], dim=1))
        for name, pairs in parts.items()
    }


def linear_maps(transformer: FlowTransformer) -> dict[str, nn.Linear]:
    """What adapters change, by name."""
    return {n: m for n, m in transformer.named_modules() if isinstance(m, nn.Linear)}


def check_fit(
    adapter: Adapter, linears: Mapping[str, nn.Linear], own_fingerprint: str, name: str
) -> None:
    """Refuse an adapter of another model.

    Args:
        adapter: in memory.
        linears: of the model, see `linear_maps`.
        own_fingerprint: hash of the model's transformer without any adapter.
        name: what the model is called.

    Raises:
        CheckpointError: it was trained beside other weights, or does not fit; names both.
    """
    if adapter.base_fingerprint not in ("", own_fingerprint):
        raise CheckpointError(
            f"{adapter.path}: an adapter of {adapter.base} ({adapter.base_fingerprint}), but "
            f"the model is {name} ({own_fingerprint})"
        )
    for place, (a, b) in sorted(adapter.maps.items()):
        linear, into, out = linears.get(place), a.shape[1], b.shape[0]
        if linear is None or b.shape[1] != a.shape[0]:
            wrong = "is no linear map of" if linear is None else "has two ranks for"
            raise CheckpointError(f"{adapter.path}: {place} {wrong} {name}")
        if linear.weight.shape != (out, into):
            raise CheckpointError(
                f"{adapter.path}: {place} is {out} x {into}, but in {name} it is "
                f"{' x '.join(map(str, linear.weight.shape))}"
            )


def write_adapter(
    path: Path, maps: Mapping[str, LowRank], base: str, base_fingerprint: str
) -> None:
    """Write an adapter as `read_adapter` reads it.

    Args:
        path: of the file.
        maps: A and B by the name of the linear map.
        base: what the model is called.
        base_fingerprint: hash of its transformer's weights without the adapter.
    """
    state = {name + A_NAME: a for name, (a, _) in maps.items()}
    state |= {name + B_NAME: b for name, (_, b) in maps.items()}
    write_weights(path, state, {"format": "pt", BASE: base, BASE_FINGERPRINT: base_fingerprint})
