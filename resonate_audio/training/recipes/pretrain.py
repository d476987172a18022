"""The recipe of the flow transformer, trained on clips or on shards of latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.errors import ConfigError
from resonate_audio.data.latent_cache import (
    all_captions,
    cache_key,
    cached_captions,
    cached_latents,
    make_latent_set,
)
from resonate_audio.data.latents import LatentSet
from resonate_audio.data.shards.read import LatentShards
from resonate_audio.data.waveforms import WaveformSet
from resonate_audio.model.adapter import ADAPTER_NAME, write_adapter
from resonate_audio.model.checkpoint import fingerprint_weights
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.model.folder import Networks, build_vocoder, write_networks
from resonate_audio.model.linear_vae import AnyVAE, LinearVAE
from resonate_audio.model.presets import ModelConfig
from resonate_audio.model.text_encoder import TextEncoder
from resonate_audio.training.loop.distributed import current_ranks, joined_ranks
from resonate_audio.training.loop.start import train
from resonate_audio.training.loop.task import Task
from resonate_audio.training.loop.trainer import RunResult
from resonate_audio.training.pretrain.listen import ListenConfig, Listener
from resonate_audio.training.pretrain.mean_flow import MeanFlowConfig, MeanFlowTask
from resonate_audio.training.pretrain.shards import ShardPretrainTask
from resonate_audio.training.pretrain.task import (
    FlowConfig,
    PretrainTask,
    build_transformer,
    scales_by_gain,
    set_latent_statistics,
)
from resonate_audio.training.recipes.model import (
    ModelRecipe,
    Say,
    load_part,
    load_text_encoder,
    load_vae,
    open_waves,
    text_encoder_folder,
)
from resonate_audio.training.reinforce.lora import (
    LoraSettings,
    add_lora,
    low_rank,
    merged_state,
    plain_copy,
)

MODEL_NAME = "model"
"""Folder of the whole model in the export of a run."""


class PretrainRecipe(ModelRecipe):
    """Train the flow transformer of a family."""

    window_s: tuple[float, ...] = Field((10.0,), min_length=1)
    """Lengths that clips are padded to; each clip takes the shortest that holds it."""
    channel_exponent: float | None = Field(None, ge=0, le=1)
    """Scale normalised latents by the power of their channel's gain in the mel (linear VAE only);
    None is 0, and keeps the statistics of ``weights.transformer`` where that is given."""
    latent_scale: float | None = Field(None, gt=0, le=100)
    """Standard deviation of normalised latents, times their channel's scale; None is 1. The same
    noise hides more of small latents: level t of latents scaled by s is level t / (t + s (1 - t))
    of the others. For s < 1 drawn times and equal steps stay longer where text decides."""
    flow: FlowConfig = FlowConfig()
    mean_flow: MeanFlowConfig | None = None
    """Objective of a network of mean velocities, which is trained by no other; None is the
    published one. Plain networks have none."""
    listen: ListenConfig = ListenConfig()
    lora: LoraSettings | None = None
    """Train adapters beside the weights of ``weights.transformer`` instead of the weights."""

    @model_validator(mode="after")
    def _lora_has_a_base(self) -> PretrainRecipe:
        if self.lora is not None and self.weights.transformer is None:
            raise ValueError("lora: needs weights.transformer, which the adapters change")
        return self

    @model_validator(mode="after")
    def _one_deviation(self) -> PretrainRecipe:
        std = self.model.transformer.data_std
        if std is not None and self.latent_scale not in (None, std):
            raise ValueError(
                f"latent_scale {self.latent_scale:g}: model.transformer.data_std is {std:g}, which "
                "is what the latents have to have"
            )
        return self

    @model_validator(mode="after")
    def _mean_flow_has_mean_velocities(self) -> PretrainRecipe:
        if self.mean_flow is not None and not self.model.transformer.mean_velocity:
            raise ValueError(
                f"mean_flow: {self.model.name} has no mean velocities; `resonate train distil` "
                "makes a network of them"
            )
        return self


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
        export = prepare(recipe, model, vae)
        flow = flow_of(recipe)
        task = PretrainTask(model, data.to(device), flow, recipe.run.seed, listener)
        task.write, task.state = export, merged_state
        return with_objective(recipe, task, {"data.manifest": waves.content()})

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
        scales = channel_scales(recipe, vae)
        model = build_transformer(recipe.model.transformer, data, scales).to(device)
        start_from(recipe, model, data, scales)
        listener = None
        if vae is not None and recipe.listen.prompts:
            listener = make_listener(recipe, load_text_encoder(recipe, device), vae, device)
        export = prepare(recipe, model, vae)
        task = ShardPretrainTask(
            model, data, flow_of(recipe), recipe.run.seed, current_ranks(), listener,
            recipe.data.shuffle_window,
        )  # fmt: skip
        task.write, task.state = export, merged_state
        return with_objective(recipe, task, {"data.shards": data.shards.content()})

    return train(build, recipe)


def flow_of(recipe: PretrainRecipe) -> FlowConfig:
    """The flow's settings; the MeanFlow objective drops prompts itself."""
    if not recipe.model.transformer.mean_velocity:
        return recipe.flow
    return recipe.flow.model_copy(update={"condition_dropout": 0.0})


def with_objective(recipe: PretrainRecipe, task: PretrainTask, contents: dict[str, str]) -> Task:
    """Flow matching, or MeanFlow for a network that predicts mean velocities.

    Args:
        recipe: says which network it is.
        task: draws the batches and computes flow matching.
        contents: hashes of what decides the run.
    """
    whole: Task = task
    if recipe.model.transformer.mean_velocity:
        objective = recipe.mean_flow or MeanFlowConfig()
        whole = MeanFlowTask(task, recipe.flow.condition_dropout, objective)
    whole.contents = contents
    return whole


Export = Callable[[FlowTransformer, Path], None]
"""Writes what is exported beside the weights."""


def prepare(recipe: PretrainRecipe, model: FlowTransformer, vae: AnyVAE | None) -> Export:
    """Put adapters into a model where the recipe wants them, and say what will be exported."""
    base = ""
    if recipe.lora is not None:
        base = fingerprint_weights([model.state_dict()])
        add_lora(model, recipe.lora)

    def export(trained: FlowTransformer, folder: Path) -> None:
        if recipe.lora is not None:
            write_adapter(folder / ADAPTER_NAME, low_rank(trained), recipe.model.name, base)
        if vae is not None and recipe.weights.vocoder is not None:
            write_model(recipe, recipe.model, vae, plain_copy(trained), folder / MODEL_NAME)

    return export


def write_model(
    recipe: ModelRecipe, config: ModelConfig, vae: AnyVAE, flow: FlowTransformer, folder: Path
) -> None:
    """Put a flow beside the other parts that a recipe names: a model to be used."""
    assert recipe.weights.vocoder is not None
    vocoder = build_vocoder(config.vocoder)
    load_part(vocoder, recipe.weights.vocoder)
    parts = Networks(config, flow, vae, vocoder)
    write_networks(folder, parts, text_encoder_folder(recipe), overwrite=True)


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


def channel_scales(recipe: PretrainRecipe, vae: AnyVAE | None) -> Float[Tensor, " channel"] | None:
    """Standard deviations that the normalised latents shall have, if the recipe says so.

    Raises:
        ConfigError: the VAE has no gains to go by.
    """
    if recipe.channel_exponent is None and recipe.latent_scale is None:
        return None
    scale = recipe.latent_scale or 1.0
    if recipe.channel_exponent is None:
        return torch.full((recipe.model.vae.latent_channels,), scale)
    if not isinstance(vae, LinearVAE):
        raise ConfigError("channel_exponent: needs a linear VAE, whose channels have gains")
    return scale * scales_by_gain(vae.gains(), recipe.channel_exponent)


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
    text_key = fingerprint_weights(encoder.states())
    folder = cache / f"captions-{cache_key(*texts, text_key, config.text_encoder.kind)}"
    captions = cached_captions(texts, encoder, folder, config.text_encoder.num_tokens, say)
    return make_latent_set(windows, waves, captions)


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
