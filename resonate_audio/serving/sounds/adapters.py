"""Adapters of a server: which fits which model, and how clients ask for them: ``nano+rain:0.5``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.adapter import (
    LARGEST_WEIGHT,
    Adapter,
    check_fit,
    linear_maps,
    read_adapter,
)
from resonate_audio.model.checkpoint import fingerprint_weights
from resonate_audio.model.folder import read_part
from resonate_audio.model.presets import ModelConfig
from resonate_audio.serving.errors import ApiError

PLUS, COLON = "+", ":"


def fitting_adapters(
    files: Mapping[str, str], models: Mapping[str, tuple[Path, ModelConfig]]
) -> dict[str, dict[str, Adapter]]:
    """Which adapters each model takes, by the names that clients use.

    Args:
        files: ``FILE`` or ``FILE:weight`` of each adapter by its name.
        models: folder and settings of each model by its name.

    Raises:
        CheckpointError: a file is no adapter, or an adapter of none of the models; names both.
        InputError: a weight is out of range.
    """
    adapters = {name: read_adapter(text) for name, text in files.items()}
    fitting: dict[str, dict[str, Adapter]] = {name: {} for name in models}
    refusals: dict[str, CheckpointError] = {}
    for model, (folder, config) in models.items() if adapters else ():
        transformer = read_part(folder, config, "transformer")
        own, linears = fingerprint_weights([transformer.state_dict()]), linear_maps(transformer)
        for name, adapter in adapters.items():
            try:
                check_fit(adapter, linears, own, model)
                fitting[model][name] = adapter
            except CheckpointError as error:
                refusals.setdefault(name, error)
    for name, refusal in refusals.items():
        if not any(name in found for found in fitting.values()):
            raise refusal
    return fitting


def parse_adapted(name: str, fitting: Mapping[str, Mapping[str, Adapter]]) -> dict[str, Adapter]:
    """The adapters in a model's name, by the names that clients use.

    Args:
        name: ``MODEL+ADAPTER`` or ``MODEL+ADAPTER:WEIGHT``, any number of adapters.
        fitting: those of each model.

    Raises:
        ApiError: an adapter that is not here or of another model, twice the same, or a weight out
            of range.
    """
    model, *wanted = name.split(PLUS)
    chosen: dict[str, Adapter] = {}
    for text in wanted:
        adapter, colon, number = text.partition(COLON)
        if adapter not in fitting[model]:
            raise _unknown(adapter, model, fitting)
        if adapter in chosen:
            raise ApiError(422, f"model: adapter {adapter} is given twice; give it once", "model")
        found = fitting[model][adapter]
        weight = _weight(number, text) if colon else found.weight
        chosen[adapter] = dataclasses.replace(found, weight=weight)
    return chosen


def _unknown(name: str, model: str, fitting: Mapping[str, Mapping[str, Adapter]]) -> ApiError:
    others = [other for other, found in fitting.items() if name in found]
    if others:
        of = fitting[others[0]][name].base or others[0]
        message = f"model: {name} is an adapter of {of}, not of {model}"
        return ApiError(422, message, "model", "adapter_of_another_model")
    names = ", ".join(fitting[model]) or "none"
    message = f"model: {name[:100]!r} is no adapter of {model} here; there is {names}"
    return ApiError(404, message, "model", "adapter_not_found")


def _weight(number: str, text: str) -> float:
    try:
        weight = float(f"{float(number):g}")  # as its name will say it
    except ValueError:
        weight = math.nan
    if not abs(weight) <= LARGEST_WEIGHT:
        raise ApiError(
            422,
            f"model: {text[:100]!r}: expected an adapter's weight from {-LARGEST_WEIGHT:g} to "
            f"{LARGEST_WEIGHT:g}",
            "model",
        )
    return weight


def base_of(name: str) -> str:
    """The model's own name in one with adapters."""
    return name.partition(PLUS)[0]


def name_adapted(model: str, chosen: Mapping[str, Adapter]) -> str:
    """A model with adapters, as it is loaded and noted; `parse_adapted` reads it."""
    parts = [f"{name}{COLON}{adapter.weight:g}" for name, adapter in chosen.items()]
    return PLUS.join([model, *parts])
