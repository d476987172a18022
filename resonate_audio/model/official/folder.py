"""Published files become one model folder, part after part, compared with what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resonate_audio.core.config import parse_config
from resonate_audio.core.documents.json_text import read_object
from resonate_audio.core.errors import CheckpointError, ConfigError, InputError
from resonate_audio.model.checkpoint import stream_weights
from resonate_audio.model.clap_text import ClapTextConfig
from resonate_audio.model.folder import (
    PARTS,
    TEXT_ENCODER,
    WEIGHTS_NAME,
    Storage,
    part_folder,
    read_config,
    read_part,
    write_index,
    write_part,
    write_text_encoder,
    writing_model,
)
from resonate_audio.model.official.clap import write_pooled_encoder, write_published_clap
from resonate_audio.model.official.convert import load_official, official_config, read_official
from resonate_audio.model.presets import (
    FLUXAUDIO_S,
    MEANAUDIO_S,
    RESONATE,
    RESONATE_16K,
    ModelConfig,
)
from resonate_audio.model.text_encoder import POOLED_FOLDER

PROBE_FRAMES = 12
"""Latent frames of the random input that both networks are run on."""
KNOWN_FILES = {
    "transformer": "Resonate_PT.pth or Resonate_GRPO.pth",
    "vae": "v1-44.pth or v1-16.pth",
    "vocoder": "the BigVGAN generator",
}


@dataclass(frozen=True)
class PartReport:
    """How one network came through the conversion."""

    part: str
    source: str
    num_tensors: int
    num_elements: int
    weight_error: float
    """Largest absolute difference of any weight, read back from the folder."""
    output_error: float
    """Largest difference of the outputs on random input, relative to the largest output."""


@dataclass(frozen=True)
class Sources:
    """What a model folder is made of."""

    files: Mapping[str, Path]
    """Published file of each network."""
    config: ModelConfig
    base: Path | None = None
    """Model folder that gives the networks without a file."""
    text_encoder: Path | None = None
    """Folder of the text encoder, to travel with the model."""
    pooled: tuple[Path, Path] | None = None
    """LAION's checkpoint and RoBERTa's tokenizer, where they are not in that folder."""


def convert_files(
    sources: Sequence[Path],
    output: Path,
    base: Path | None = None,
    storage: Storage = "float32",
    overwrite: bool = False,
    text_encoder: Path | None = None,
) -> list[PartReport]:
    """Turn published files into a model folder, read it back and compare.

    One network is in memory at a time; with ``storage="float32"`` once.

    Args:
        sources: one file a network, recognised by their content.
        output: folder to write.
        base: model folder that gives the networks (and the text encoder) not among the sources.
        storage: type of the matrices on disk.
        overwrite: replace a model folder that is there.
        text_encoder: folder with ``config.json``, ``tokenizer.json`` and ``model.safetensors``.

    Raises:
        InputError: two sources are the same network, or one is missing.
        CheckpointError: names the first tensor that is missing, unexpected or misshapen.
        ConfigError: the networks do not fit each other.
        OutputError: the folder cannot be written.
    """
    found = find_sources(sources, base, text_encoder)
    with writing_model(output, overwrite) as folder:
        return write_sources(found, folder, storage)


def write_sources(sources: Sources, folder: Path, storage: Storage = "float32") -> list[PartReport]:
    """Write everything that a model is made of into an unfinished folder.

    Raises:
        CheckpointError: names the first tensor that is missing, unexpected or misshapen.
    """
    reports = [convert_part(sources, part, folder, storage) for part in PARTS]
    if sources.text_encoder is not None:
        write_text_encoder(folder, sources.text_encoder, sources.config.text_encoder.kind)
        if sources.config.text_encoder.pooled is not None:
            _write_pooled(sources, folder / TEXT_ENCODER / POOLED_FOLDER)
    write_index(folder, sources.config)
    return reports


def _write_pooled(sources: Sources, target: Path) -> None:
    assert sources.text_encoder is not None
    if sources.pooled is not None:
        write_published_clap(*sources.pooled, target)
    elif not target.is_dir():
        write_pooled_encoder(sources.text_encoder / POOLED_FOLDER, target)
    sizes = ClapTextConfig.model_validate(read_object(target / "config.json", CheckpointError))
    expected = sources.config.text_encoder.pooled_dim
    if sizes.projection_dim != expected:
        raise CheckpointError(
            f"pooled text encoder: {sizes.projection_dim} wide, the flow transformer takes "
            f"{expected}"
        )


def find_sources(
    paths: Sequence[Path],
    base: Path | None = None,
    text_encoder: Path | None = None,
    family: ModelConfig | None = None,
) -> Sources:
    """Say which file is which network, and derive the configuration of the whole from the shapes.

    Args:
        paths: one published file a network.
        base: model folder for what is not among them.
        text_encoder: folder of the text encoder.
        family: whose mel, lengths, steps and text encoder are taken; by default the base's, or
            what the shapes tell.

    Raises:
        InputError: two files are the same network, or one is missing and there is no base.
        CheckpointError: a file is none of the published networks.
        ConfigError: the networks do not fit each other.
    """
    files: dict[str, Path] = {}
    configs: dict[str, Any] = {}
    for path in paths:
        part, state = read_official(path, mapped=True)
        if part in files:
            raise InputError(f"{path}: a second {part}; {files[part].name} is one already")
        files[part], configs[part] = path, official_config(part, state, str(path))
    missing = [part for part in PARTS if part not in files]
    if missing and base is None:
        wanted = " and ".join(f"{part} ({KNOWN_FILES[part]})" for part in missing)
        raise InputError(f"no {wanted} among the sources: add it, or give --base MODEL_FOLDER")
    if text_encoder is None and base is not None:
        inside = part_folder(base, TEXT_ENCODER)
        text_encoder = inside if inside.is_dir() else None
    family = family or (_family(configs) if base is None else read_config(base))
    return Sources(files, _joined(family, configs, text_encoder), base, text_encoder)


def _joined(
    family: ModelConfig, configs: Mapping[str, Any], text_encoder: Path | None
) -> ModelConfig:
    """A family's configuration with the sizes of the networks that were found."""
    values = family.model_dump() | {part: config.model_dump() for part, config in configs.items()}
    if text_encoder is not None:
        values["text_encoder"]["dim"] = _encoder_width(text_encoder)
    if values["text_encoder"]["pooled"] is not None:
        values["text_encoder"]["pooled"]["dim"] = values["transformer"]["pooled_dim"]
    if values["transformer"]["mean_velocity"] != family.transformer.mean_velocity:
        kind = "mean velocities" if family.transformer.mean_velocity else "one time"
        raise ConfigError(f"the flow transformer: {family.name} is a network of {kind}")
    return parse_config(ModelConfig, values, "the converted networks")


def _family(configs: Mapping[str, Any]) -> ModelConfig:
    """The family whose mel, lengths and text encoder go with the networks."""
    flow = configs.get("transformer")
    if configs["vae"].num_bands == RESONATE.mel.num_bands:
        return RESONATE
    if flow is not None and flow.mean_velocity:
        return MEANAUDIO_S
    return FLUXAUDIO_S if flow is not None and flow.pooled_dim != flow.text_dim else RESONATE_16K


def _encoder_width(folder: Path) -> int:
    settings = read_object(folder / "config.json", CheckpointError)
    width = settings.get("d_model", settings.get("hidden_size"))
    if not isinstance(width, int):
        raise ConfigError(f"{folder / 'config.json'}: no d_model; not the text encoder")
    return width


def convert_part(sources: Sources, part: str, folder: Path, storage: Storage) -> PartReport:
    """Write one network into an unfinished model folder and compare what can be read of it."""
    before = load_source(sources, part)
    expected = probe(part, before)
    state = dict(before.state_dict())
    write_part(folder, part, state, storage)
    again = stream_weights(folder / part / WEIGHTS_NAME, state)
    error = max(_difference(state[name], value) for group in again for name, value in group.items())
    num_tensors, num_elements = len(state), sum(value.numel() for value in state.values())
    del before, state
    output_error = relative_difference(
        expected, probe(part, read_part(folder, sources.config, part))
    )
    path = sources.files.get(part)
    name = path.name if path is not None else "the base model"
    return PartReport(part, name, num_tensors, num_elements, error, output_error)


def load_source(sources: Sources, part: str) -> nn.Module:
    """The network that a part is made from, in float32."""
    path = sources.files.get(part)
    if path is None:
        assert sources.base is not None, part
        network: nn.Module = read_part(sources.base, sources.config, part)
        return network
    found, state = read_official(path)
    return load_official(found, state, str(path))


@torch.no_grad()
def probe(part: str, network: Any) -> Tensor:
    """Output of a network on random input that depends on its sizes only."""
    generator = torch.Generator().manual_seed(0)
    config = network.config

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if part == "vae":
        output = network.decode(draw(1, PROBE_FRAMES, config.latent_channels))
    elif part == "vocoder":
        output = network(draw(1, config.num_bands, PROBE_FRAMES))
    else:
        conditions = network.condition(network.empty_features(1))
        z = draw(1, PROBE_FRAMES, config.latent_channels)
        output = network(z, torch.full((1,), 0.5), conditions)
    assert isinstance(output, Tensor), type(output)
    return output


def relative_difference(one: Tensor, other: Tensor) -> float:
    """Largest absolute difference over the largest absolute value."""
    largest = one.abs().max().item()
    return _difference(one, other) / largest if largest else _difference(one, other)


def _difference(one: Tensor, other: Tensor) -> float:
    return (one.double() - other.double()).abs().max().item() if one.numel() else 0.0
