"""Putting trained parts into the folder that ships with the package.

python -m resonate_audio.nano.bundle TRANSFORMER VAE VOCODER [--target FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from resonate_audio.core.errors import CheckpointError, ResonateError
from resonate_audio.core.files import atomic_path
from resonate_audio.core.paths import bundled_recipes
from resonate_audio.model.checkpoint import load_strict, read_weights, write_weights
from resonate_audio.model.folder import (
    INDEX_NAME,
    PARTS,
    WEIGHTS_NAME,
    Networks,
    Storage,
    build_networks,
    index_text,
    read_config,
    read_networks,
    stored,
)
from resonate_audio.model.hub import find_model
from resonate_audio.model.presets import NANO, ModelConfig

BUNDLED_FOLDER = Path(__file__).parent / "weights"
TAUGHT_FOLDER = Path(__file__).parent / "grpo"
PROMPTS_FOLDER = Path(__file__).parent / "prompts"
"""What nano is reinforced with and measured on; recipes/nano/write_prompts drew them."""
GRPO_RECIPE = "nano/grpo"
"""What made nano-grpo."""


def find_grpo_recipe() -> Path:
    """The recipe that made nano-grpo: in an installed package, else in the checkout."""
    return bundled_recipes()[GRPO_RECIPE]


def bundle_nano(
    sources: Mapping[str, Path],
    target: Path = BUNDLED_FOLDER,
    config: ModelConfig = NANO,
    storage: Storage = "float16",
) -> dict[str, int]:
    """Write trained parts as a model into a folder that may hold a model card and licences.

    The VAE's weights are normalised first, which is what inference needs.

    Args:
        sources: weights file of each part, or a folder that holds ``model.safetensors``.
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
        path = sources[part]
        path = path / WEIGHTS_NAME if path.is_dir() else path
        _load(networks, part, path)
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
    source: Path, target: Path = TAUGHT_FOLDER, base: str = "nano", storage: Storage = "float16"
) -> int:
    """Write the transformer of a taught model beside its base, of which it has all other parts.

    Args:
        source: folder of the taught model, such as ``export`` of a run; also one that holds the
            weights of a transformer alone, as pre-training and fine-tuning write it.
        target: folder; a card in it stays as it is.
        base: bundled model that it was taught from.
        storage: type of the matrices on disk.

    Returns:
        Bytes on disk.

    Raises:
        CheckpointError: the model has other sizes than its base.
        OutputError: the folder cannot be written.
    """
    expected = read_config(find_model(base))
    networks = _read_taught(source, expected)
    if networks.config.transformer != expected.transformer:
        raise CheckpointError(f"{source}: its transformer has other sizes than that of {base}")
    path = target / "transformer" / WEIGHTS_NAME
    state = stored(networks.states()["transformer"], storage, "transformer")
    write_weights(path, state, {"format": "pt"})
    with atomic_path(target / INDEX_NAME) as temporary:
        own = {"default_guidance": networks.config.default_guidance}
        temporary.write_text(index_text(expected.model_copy(update=own), base), encoding="utf-8")
    return path.stat().st_size


def _read_taught(source: Path, config: ModelConfig) -> Networks:
    weights = source / WEIGHTS_NAME
    if not weights.is_file():
        return read_networks(source)
    networks = build_networks(config)
    _load(networks, "transformer", weights)
    return networks


def _load(networks: Networks, part: str, path: Path) -> None:
    network: nn.Module = getattr(networks, part)
    load_strict(network, read_weights(path), str(path))


def main(arguments: list[str] | None = None) -> int:
    """Bundle the three files given; exit 2 with one line on a mistake."""
    parser = argparse.ArgumentParser(prog="bundle", description="Ship trained parts as nano.")
    for part in PARTS:
        parser.add_argument(part, type=Path, help="weights file or folder")
    parser.add_argument("--target", type=Path, default=BUNDLED_FOLDER)
    options = parser.parse_args(arguments)
    try:
        sizes = bundle_nano({part: getattr(options, part) for part in PARTS}, options.target)
    except ResonateError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for part, size in sizes.items():
        sys.stdout.write(f"{part:<12} {size / 1e6:6.2f} MB\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
