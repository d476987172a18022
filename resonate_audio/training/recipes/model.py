"""What every recipe of a network names: a family, its clips, the parts that are trained already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import nn

from resonate_audio.core.config import FrozenConfig, GivenPath, WrittenPath
from resonate_audio.core.errors import ConfigError
from resonate_audio.core.paths import PACKAGE, input_path
from resonate_audio.data.manifest import read_manifest
from resonate_audio.data.shards.order import WINDOW
from resonate_audio.data.waveforms import WaveformSet, cached_waveforms
from resonate_audio.model.checkpoint import load_strict, read_weights
from resonate_audio.model.linear_vae import AnyVAE, build_vae
from resonate_audio.model.presets import PRESETS, ModelConfig
from resonate_audio.model.text_encoder import TextEncoder
from resonate_audio.training.loop.run_config import TrainerConfig

Say = Callable[[str], None]


class DataConfig(FrozenConfig):
    """Which clips to train on: those of a manifest, or of shards (pre-training only)."""

    manifest: GivenPath | None = None
    splits: tuple[str, ...] | None = None
    """Use only lines with one of these ``split`` values; None uses all."""
    shards: str | None = None
    """Folder or address of what ``resonate data encode`` wrote; it is read while training."""
    shuffle_window: int = Field(WINDOW, ge=1)
    """Clips that a clip of the shuffled shards may be moved by."""
    cache: WrittenPath = Path("cache")
    """Folder for decoded clips and encodings; it may be deleted at any time."""

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        if (self.manifest is None) == (self.shards is None):
            raise ValueError("expected either manifest or shards")
        if self.shards is not None and self.splits is not None:
            raise ValueError("splits: shards have none; encode the manifest of one split")
        return self


class WeightsConfig(FrozenConfig):
    """Trained parts, each a weights file or a folder that holds ``model.safetensors``."""

    vae: GivenPath | None = None
    vocoder: GivenPath | None = None
    text_encoder: GivenPath | None = None
    """Folder with config.json, tokenizer.json and model.safetensors."""
    transformer: GivenPath | None = None
    """Weights to start from instead of fresh ones."""


class ModelRecipe(TrainerConfig):
    """The part of a recipe that says what is trained on what.

    ``preset`` names a family; ``model`` replaces single fields of it.
    """

    preset: str
    model: ModelConfig
    data: DataConfig
    weights: WeightsConfig = WeightsConfig()

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("preset") not in PRESETS:
            known = ", ".join(PRESETS)
            raise ValueError(f"preset: expected one of {known}")
        base = PRESETS[values["preset"]].model_dump(mode="json")
        return values | {"model": merge(base, values.get("model") or {})}


def open_waves(recipe: ModelRecipe, say: Say) -> WaveformSet:
    """The recipe's clips, decoded at the model's rate.

    Raises:
        ConfigError: the recipe names shards, which hold latents, where sound is needed.
    """
    if recipe.data.manifest is None:
        raise ConfigError("data.manifest is not set: shards of latents train the flow alone")
    manifest = read_manifest(recipe.data.manifest, recipe.data.splits)
    return cached_waveforms(manifest, recipe.model.mel.sample_rate_hz, recipe.data.cache, say)


def load_vae(recipe: ModelRecipe, device: torch.device) -> AnyVAE:
    """The trained VAE, folded for inference.

    Raises:
        ConfigError: the recipe does not say where it is.
    """
    if recipe.weights.vae is None:
        raise ConfigError("weights.vae is not set: expected the file that `train vae` exported")
    vae = build_vae(recipe.model.vae)
    load_part(vae, recipe.weights.vae)
    vae.fold_weight_norm()
    return vae.to(device).eval().requires_grad_(False)


def load_text_encoder(recipe: ModelRecipe, device: torch.device) -> TextEncoder:
    """The text encoder; MiniLM comes with the package.

    Raises:
        ConfigError: a T5 is wanted and the recipe does not say where it is.
    """
    folder, config = text_encoder_folder(recipe), recipe.model.text_encoder
    if folder is None:
        raise ConfigError(
            f"weights.text_encoder is not set: expected a folder with the files of {config.repo_id}"
        )
    encoder = TextEncoder.from_folder(config, input_path(folder))
    return encoder.to(device).eval()


def text_encoder_folder(recipe: ModelRecipe) -> Path | None:
    """Where the text encoder's files lie; None where only the recipe could say it."""
    if recipe.weights.text_encoder is not None or recipe.model.text_encoder.kind != "minilm":
        return recipe.weights.text_encoder
    return PACKAGE / "nano" / "weights" / "text_encoder"


def load_part(module: nn.Module, path: Path) -> None:
    """Load one part's weights from a file, or from ``model.safetensors`` in a folder."""
    file = weights_file(path)
    load_strict(module, read_weights(file), str(file))


def weights_file(path: Path) -> Path:
    """The file of weights itself: ``model.safetensors`` where a folder is named."""
    path = input_path(path)
    return path / "model.safetensors" if path.is_dir() else path


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with single fields of its groups replaced; a group of another kind whole."""
    result = dict(base)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = value
        if isinstance(old, dict) and isinstance(value, dict):
            kind = old.get("kind")
            result[name] = merge(old, value) if value.get("kind", kind) == kind else value
    return result
