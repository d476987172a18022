"""Recipes: one YAML file names the model, the data and every number of a run."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import ConfigError
from resonate_audio.data.latent_cache import (
    all_captions,
    cache_key,
    cached_captions,
    cached_latents,
    make_latent_set,
)
from resonate_audio.data.latents import LatentSet
from resonate_audio.data.manifest import read_manifest
from resonate_audio.data.shards.order import WINDOW
from resonate_audio.data.shards.read import LatentShards
from resonate_audio.data.waveforms import WaveformSet, cached_waveforms
from resonate_audio.model.checkpoint import (
    fingerprint_weights,
    load_strict,
    read_weights,
    write_weights,
)
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.model.folder import build_vocoder
from resonate_audio.model.linear_vae import AnyVAE, LinearVAE, LinearVAEConfig, build_vae
from resonate_audio.model.presets import PRESETS, ModelConfig
from resonate_audio.model.text_encoder import TextEncoder
from resonate_audio.model.vae import MelVAE
from resonate_audio.training.codec.crops import CropConfig, CropSource
from resonate_audio.training.codec.linear_vae import clip_mels, fit_linear_vae
from resonate_audio.training.codec.vae import VAEObjective, VAETask, set_mel_statistics
from resonate_audio.training.codec.vocoder import VocoderObjective, VocoderTask
from resonate_audio.training.loop.distributed import current_ranks, joined_ranks
from resonate_audio.training.loop.resume import prepare_folder
from resonate_audio.training.loop.run_config import TrainerConfig
from resonate_audio.training.loop.start import train
from resonate_audio.training.loop.task import Task
from resonate_audio.training.loop.trainer import RunResult
from resonate_audio.training.pretrain.listen import ListenConfig, Listener
from resonate_audio.training.pretrain.shards import ShardPretrainTask
from resonate_audio.training.pretrain.task import (
    FlowConfig,
    PretrainTask,
    build_transformer,
    scales_by_gain,
    set_latent_statistics,
)

Say = Callable[[str], None]


class DataConfig(FrozenConfig):
    """Which clips to train on: those of a manifest, or of shards (pre-training only)."""

    manifest: Path | None = None
    splits: tuple[str, ...] | None = None
    """Use only lines with one of these ``split`` values; None uses all."""
    shards: str | None = None
    """Folder or address of what ``resonate data encode`` wrote; it is read while training."""
    shuffle_window: int = Field(WINDOW, ge=1)
    """Clips that a clip of the shuffled shards may be moved by."""
    cache: Path = Path("cache")
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

    vae: Path | None = None
    vocoder: Path | None = None
    text_encoder: Path | None = None
    """Folder with config.json, tokenizer.json and model.safetensors."""
    transformer: Path | None = None
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


class VAERecipe(ModelRecipe):
    """Train the VAE of a family."""

    crops: CropConfig = CropConfig()
    objective: VAEObjective = VAEObjective()
    fit_clips: int = Field(8000, ge=1)
    """Clips that a linear VAE is fitted to."""


class VocoderRecipe(ModelRecipe):
    """Train the vocoder of a family."""

    crops: CropConfig = CropConfig()
    objective: VocoderObjective = VocoderObjective()


class PretrainRecipe(ModelRecipe):
    """Train the flow transformer of a family."""

    window_s: tuple[float, ...] = Field((10.0,), min_length=1)
    """Lengths that clips are padded to; each clip takes the shortest that holds it."""
    channel_exponent: float | None = Field(None, ge=0, le=1)
    """Scale normalised latents by the power of their channel's gain in the mel (linear VAE only);
    None is 0, and keeps the statistics of ``weights.transformer`` where that is given."""
    flow: FlowConfig = FlowConfig()
    listen: ListenConfig = ListenConfig()


def train_vae(recipe: VAERecipe, say: Say) -> RunResult:
    """Run a VAE recipe; the linear one is fitted in closed form."""
    config = recipe.model.vae
    if isinstance(config, LinearVAEConfig):
        return fit_vae(recipe, LinearVAE(config), say)
    source = open_crops(recipe, recipe.crops, say)

    def build(device: torch.device) -> Task:
        model = MelVAE(config).to(device)
        mel = MelFrontEnd(recipe.model.mel).to(device)
        set_mel_statistics(model, mel, source)
        return VAETask(model, mel, source, recipe.objective)

    return train(build, recipe)


def fit_vae(recipe: VAERecipe, model: LinearVAE, say: Say) -> RunResult:
    """Fit the linear VAE to the recipe's clips and export it."""
    prepare_folder(recipe)
    waves = open_waves(recipe, say)
    count = fit_linear_vae(model, clip_mels(waves, recipe.model.mel, recipe.fit_clips))
    write_weights(recipe.run.output / "export" / "model.safetensors", model.state_dict(), {})
    say(f"fitted to {count} patches")
    return RunResult(1, True)


def train_vocoder(recipe: VocoderRecipe, say: Say) -> RunResult:
    """Run a vocoder recipe."""
    source = open_crops(recipe, recipe.crops, say)

    def build(device: torch.device) -> Task:
        model = build_vocoder(recipe.model.vocoder).to(device)
        mel = MelFrontEnd(recipe.model.mel).to(device)
        vae = load_vae(recipe, device) if recipe.objective.decoded_share else None
        return VocoderTask(model, mel, source, recipe.objective, vae)

    return train(build, recipe)


def train_flow(recipe: PretrainRecipe, say: Say) -> RunResult:
    """Run a pre-training recipe, in one process or in those that torchrun started."""
    with joined_ranks(recipe.run.device) as ranks:
        say = ranks.say(say)
        if recipe.data.shards is not None:
            return train_on_shards(recipe, recipe.data.shards, say)
        with ranks.first_alone():  # it decodes; the others read what it wrote
            waves = open_waves(recipe, say)
        return _train_flow(recipe, waves, say)


def _train_flow(recipe: PretrainRecipe, waves: WaveformSet, say: Say) -> RunResult:

    def build(device: torch.device) -> Task:
        vae = load_vae(recipe, device)
        encoder = load_text_encoder(recipe, device)
        with current_ranks().first_alone():
            data = encode_data(recipe, waves, vae, encoder, say)
        scales = channel_scales(recipe, vae)
        model = build_transformer(recipe.model.transformer, data, scales).to(device)
        start_from(recipe, model, data, scales)
        listener = make_listener(recipe, encoder, vae, device)
        return PretrainTask(model, data.to(device), recipe.flow, recipe.run.seed, listener)

    return train(build, recipe)


def train_on_shards(recipe: PretrainRecipe, location: str, say: Say) -> RunResult:
    """Run a pre-training recipe on clips that were encoded before."""
    data = LatentShards(location, say)
    check_shards(recipe, data)
    say(f"{len(data.shards.samples)} samples in {len(data.shards.sizes)} shards of {location}")
    needs_vae = bool(recipe.listen.prompts) or recipe.channel_exponent is not None

    def build(device: torch.device) -> Task:
        vae = load_vae(recipe, device) if needs_vae or recipe.weights.vae else None
        if vae is not None:
            check_vae(vae, data)
        scales = None if vae is None else channel_scales(recipe, vae)
        model = build_transformer(recipe.model.transformer, data, scales).to(device)
        start_from(recipe, model, data, scales)
        listener = None
        if vae is not None and recipe.listen.prompts:
            listener = make_listener(recipe, load_text_encoder(recipe, device), vae, device)
        task = ShardPretrainTask(
            model, data, recipe.flow, recipe.run.seed, current_ranks(), listener,
            recipe.data.shuffle_window,
        )  # fmt: skip
        return task

    return train(build, recipe)


def start_from(
    recipe: PretrainRecipe,
    model: FlowTransformer,
    data: LatentSet | LatentShards,
    scales: Float[Tensor, " channel"] | None,
) -> None:
    """Load the weights that a recipe starts from, if it names any."""
    if recipe.weights.transformer is not None:
        load_part(model, recipe.weights.transformer)
        if scales is not None:
            set_latent_statistics(model, data, scales)


def check_shards(recipe: PretrainRecipe, data: LatentShards) -> None:
    """Refuse shards whose sizes are not the model's.

    Raises:
        ConfigError: names what differs.
    """
    model, text = recipe.model, recipe.model.text_encoder
    rates = (data.shards.index.settings.sample_rate_hz, model.mel.sample_rate_hz)
    pairs = {
        "sample_rate_hz": rates,
        "frame_samples": (data.settings.frame_samples, model.frame_samples),
        "channels": (data.settings.channels, model.transformer.latent_channels),
        "num_tokens": (data.settings.num_tokens, text.num_tokens),
        "text_dim": (data.settings.text_dim, text.dim),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            raise ConfigError(
                f"data.shards {recipe.data.shards}: {name} {found}, the model has {expected}; "
                f"they were encoded with {data.settings.model}"
            )


def check_vae(vae: AnyVAE, data: LatentShards) -> None:
    """Refuse a VAE that did not make the latents.

    Raises:
        ConfigError: it is another one.
    """
    found = fingerprint_weights([vae.state_dict()])
    if found != data.settings.vae:
        raise ConfigError(
            f"weights.vae: fingerprint {found}, but the shards were encoded with "
            f"{data.settings.vae} of {data.settings.model}; name that one"
        )


def channel_scales(recipe: PretrainRecipe, vae: AnyVAE) -> Float[Tensor, " channel"] | None:
    """Standard deviations that the normalised latents shall have, if the recipe says so.

    Raises:
        ConfigError: the VAE has no gains to go by.
    """
    if recipe.channel_exponent is None:
        return None
    if not isinstance(vae, LinearVAE):
        raise ConfigError("channel_exponent: needs a linear VAE, whose channels have gains")
    return scales_by_gain(vae.gains(), recipe.channel_exponent)


def encode_data(
    recipe: PretrainRecipe, waves: WaveformSet, vae: AnyVAE, encoder: TextEncoder, say: Say
) -> LatentSet:
    """Latents of every clip and features of every caption, from the cache where they are there."""
    config, cache = recipe.model, recipe.data.cache
    mel = MelFrontEnd(config.mel).to(encoder.device)
    vae_key = fingerprint_weights([vae.state_dict()])
    settings = (config.mel.model_dump_json(), str(recipe.window_s))
    folder = cache / f"latents-{cache_key(waves.fingerprint, vae_key, *settings)}"
    windows = cached_latents(waves, vae, mel, recipe.window_s, folder, say)
    texts = all_captions(waves)
    text_key = fingerprint_weights([encoder.network.state_dict()])
    folder = cache / f"captions-{cache_key(*texts, text_key, config.text_encoder.kind)}"
    captions = cached_captions(texts, encoder, folder, config.text_encoder.num_tokens, say)
    return make_latent_set(windows, waves, captions)


def open_waves(recipe: ModelRecipe, say: Say) -> WaveformSet:
    """The recipe's clips, decoded at the model's rate.

    Raises:
        ConfigError: the recipe names shards, which hold latents, where sound is needed.
    """
    if recipe.data.manifest is None:
        raise ConfigError("data.manifest is not set: shards of latents train the flow alone")
    manifest = read_manifest(recipe.data.manifest, recipe.data.splits)
    return cached_waveforms(manifest, recipe.model.mel.sample_rate_hz, recipe.data.cache, say)


def open_crops(recipe: ModelRecipe, config: CropConfig, say: Say) -> CropSource:
    """Random crops of the recipe's clips, each a whole number of latent frames."""
    return CropSource(open_waves(recipe, say), config, recipe.model.frame_samples, recipe.run.seed)


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
    folder, config = recipe.weights.text_encoder, recipe.model.text_encoder
    if folder is None and config.kind != "minilm":
        raise ConfigError(
            f"weights.text_encoder is not set: expected a folder with the files of {config.repo_id}"
        )
    bundled = Path(str(files("resonate_audio"))) / "nano" / "weights" / "text_encoder"
    encoder = TextEncoder.from_folder(config, folder or bundled)
    return encoder.to(device).eval()


def load_part(module: nn.Module, path: Path) -> None:
    """Load one part's weights from a file, or from ``model.safetensors`` in a folder."""
    file = path / "model.safetensors" if path.is_dir() else path
    load_strict(module, read_weights(file), str(file))


def make_listener(
    recipe: PretrainRecipe, encoder: TextEncoder, vae: AnyVAE, device: torch.device
) -> Listener | None:
    """What generates the recipe's prompts, if it has any."""
    prompts, config = recipe.listen.prompts, recipe.model
    if not prompts:
        return None
    vocoder = None
    if recipe.weights.vocoder is not None:
        vocoder = build_vocoder(config.vocoder)
        load_part(vocoder, recipe.weights.vocoder)
        vocoder = vocoder.to(device).eval().requires_grad_(False)
    return Listener(
        recipe.listen,
        encoder.encode(prompts),
        vae,
        vocoder,
        config.num_frames(recipe.listen.duration_s),
        config.mel.sample_rate_hz,
    )


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
