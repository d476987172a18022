"""Putting trained parts into the folders that ship with the package: see `recipes/nano/finish`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from resonate_audio.core.files import atomic_path
from resonate_audio.core.paths import bundled_recipes
from resonate_audio.model.adapter import (
    ADAPTER_NAME,
    check_fit,
    join_adapters,
    linear_maps,
    read_adapter,
    write_adapter,
)
from resonate_audio.model.checkpoint import (
    fingerprint_weights,
    load_strict,
    read_weights,
    write_weights,
)
from resonate_audio.model.folder import (
    INDEX_NAME,
    PARTS,
    WEIGHTS_NAME,
    Networks,
    Storage,
    build_networks,
    index_text,
    read_config,
    read_part,
    stored,
)
from resonate_audio.model.hub import find_model
from resonate_audio.model.presets import NANO, ModelConfig

BUNDLED_FOLDER = Path(__file__).parent / "weights"
TAUGHT_FOLDER = Path(__file__).parent / "grpo"
PROMPTS_FOLDER = Path(__file__).parent / "prompts"
"""What nano is reinforced with and measured on; recipes/nano/write_prompts drew them."""
GRPO_RECIPE = "nano/grpo"
"""What the demo teaches nano with."""


def find_grpo_recipe() -> Path:
    """The recipe of `GRPO_RECIPE`: in an installed package, else in the checkout."""
    return bundled_recipes()[GRPO_RECIPE]


def bundle_nano(
    sources: Mapping[str, Path | Sequence[Path]],
    target: Path = BUNDLED_FOLDER,
    config: ModelConfig = NANO,
    storage: Storage = "float16",
) -> dict[str, int]:
    """Write trained parts as a model into a folder that may hold a model card and licences.

    The VAE's weights are normalised first, which is what inference needs.

    Args:
        sources: weights file of each part, or a folder that holds ``model.safetensors``; of
            several, which should go back to the same weights, their mean [arXiv:2203.05482].
        target: folder; the text encoder and the cards in it stay as they are.
        config: sizes of the parts.
        storage: type of the matrices on disk.

    Returns:
        Bytes on disk of each part.

    Raises:
        CheckpointError: names the first key that is missing, unexpected or misshapen.
        OutputError: the folder cannot be written.
    """
    networks = build_networks(config)
    for part in PARTS:
        given = sources[part]
        _load(networks, part, [given] if isinstance(given, Path) else given)
    networks.vae.fold_weight_norm()
    sizes = {}
    for part, state in networks.states().items():
        path = target / part / WEIGHTS_NAME
        write_weights(path, stored(state, storage, part), {"format": "pt"})
        sizes[part] = path.stat().st_size
    with atomic_path(target / INDEX_NAME) as temporary:
        temporary.write_text(index_text(config), encoding="utf-8")
    return sizes


def bundle_taught(
    sources: Sequence[str | Path],
    target: Path = TAUGHT_FOLDER,
    base: str = "nano",
    storage: Storage = "float16",
    carried: bool = False,
) -> int:
    """Write what a model was taught beside its base, of which it has everything else.

    Args:
        sources: ``FILE`` or ``FILE:weight``, such as ``adapter.safetensors`` in the export of a run
            with ``lora``; what several runs changed is added up.
        target: folder; a card in it stays as it is.
        base: bundled model that all of them were taught from.
        storage: type of the matrices on disk.
        carried: take what was taught beside earlier weights of the base, too.

    Returns:
        Bytes on disk.

    Raises:
        CheckpointError: there is no adapter, or it is of another model.
        OutputError: the folder cannot be written.
    """
    folder = find_model(base)
    config, adapters = read_config(folder), [read_adapter(source) for source in sources]
    transformer = read_part(folder, config, "transformer")
    fingerprint = fingerprint_weights([transformer.state_dict()])
    if carried:
        adapters = [replace(adapter, base_fingerprint=fingerprint) for adapter in adapters]
    for adapter in adapters:
        check_fit(adapter, linear_maps(transformer), fingerprint, base)
    path = target / ADAPTER_NAME
    joined = join_adapters(adapters)
    a, b = (stored({n: p[side] for n, p in joined.items()}, storage, str(path)) for side in (0, 1))
    maps = {name: (a[name], b[name]) for name in joined}
    write_adapter(path, maps, adapters[0].base, adapters[0].base_fingerprint)
    with atomic_path(target / INDEX_NAME) as temporary:
        temporary.write_text(index_text(config, base), encoding="utf-8")
    return path.stat().st_size


def _load(networks: Networks, part: str, sources: Sequence[Path]) -> None:
    network: nn.Module = getattr(networks, part)
    states = []
    for source in sources:
        path = source / WEIGHTS_NAME if source.is_dir() else source
        load_strict(network, read_weights(path), str(path))
        states.append({name: value.clone() for name, value in network.state_dict().items()})
    if len(states) > 1:
        mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
        network.load_state_dict(mean)
