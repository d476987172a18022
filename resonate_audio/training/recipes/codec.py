"""Recipes of the codec: the mel VAE and the vocoder."""

from __future__ import annotations

import torch
from pydantic import Field

from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.files import alone_in
from resonate_audio.core.room import IN_TRAINING, refuse_too_large
from resonate_audio.model.checkpoint import write_weights
from resonate_audio.model.folder import build_vocoder
from resonate_audio.model.linear_vae import LinearVAE, LinearVAEConfig
from resonate_audio.model.vae import MelVAE
from resonate_audio.training.codec.crops import CropConfig, CropSource
from resonate_audio.training.codec.linear_vae import clip_mels, fit_linear_vae
from resonate_audio.training.codec.vae import VAEObjective, VAETask, set_mel_statistics
from resonate_audio.training.codec.vocoder import VocoderObjective, VocoderTask
from resonate_audio.training.loop.resume import prepare_folder
from resonate_audio.training.loop.start import train
from resonate_audio.training.loop.task import Task
from resonate_audio.training.loop.trainer import RunResult
from resonate_audio.training.recipes.model import ModelRecipe, Say, load_part, load_vae, open_waves


class VAERecipe(ModelRecipe):
    """Train the VAE of a family."""

    crops: CropConfig = CropConfig()
    objective: VAEObjective = VAEObjective()
    fit_clips: int = Field(8000, ge=1, le=100_000_000)
    """Clips that a linear VAE is fitted to."""


class VocoderRecipe(ModelRecipe):
    """Train the vocoder of a family."""

    crops: CropConfig = CropConfig()
    objective: VocoderObjective = VocoderObjective()


def train_vae(recipe: VAERecipe, say: Say) -> RunResult:
    """Run a VAE recipe; the linear one is fitted in closed form."""
    config = recipe.model.vae
    if isinstance(config, LinearVAEConfig):
        return fit_vae(recipe, LinearVAE(config), say)
    source = open_crops(recipe, recipe.crops, say)

    def build(device: torch.device) -> Task:
        refuse_too_large(lambda: MelVAE(config), "model.vae in training", IN_TRAINING)
        model = MelVAE(config).to(device)
        mel = MelFrontEnd(recipe.model.mel).to(device)
        set_mel_statistics(model, mel, source)
        task = VAETask(model, mel, source, recipe.objective)
        task.contents = {"data.manifest": source.waves.content()}
        return task

    return train(build, recipe)


def fit_vae(recipe: VAERecipe, model: LinearVAE, say: Say) -> RunResult:
    """Fit the linear VAE to the recipe's clips and export it."""
    with alone_in(recipe.run.output):
        waves = open_waves(recipe, say)
        count = fit_linear_vae(model, clip_mels(waves, recipe.model.mel, recipe.fit_clips))
        prepare_folder(recipe)
        write_weights(recipe.run.output / "export" / "model.safetensors", model.state_dict(), {})
    say(f"fitted to {count} patches")
    return RunResult(1, True)


def train_vocoder(recipe: VocoderRecipe, say: Say) -> RunResult:
    """Run a vocoder recipe."""
    source = open_crops(recipe, recipe.crops, say)

    def build(device: torch.device) -> Task:
        with torch.device("meta"):
            shape = build_vocoder(recipe.model.vocoder)
        refuse_too_large(lambda: shape, "model.vocoder in training", IN_TRAINING)
        model = build_vocoder(recipe.model.vocoder).to(device)
        mel = MelFrontEnd(recipe.model.mel).to(device)
        if recipe.weights.vocoder is not None:
            load_part(model, recipe.weights.vocoder)
        vae = load_vae(recipe, device) if recipe.objective.decoded_share else None
        task = VocoderTask(model, mel, source, recipe.objective, vae)
        task.contents = {"data.manifest": source.waves.content()}
        return task

    return train(build, recipe)


def open_crops(recipe: ModelRecipe, config: CropConfig, say: Say) -> CropSource:
    """Random crops of the recipe's clips, each a whole number of latent frames."""
    return CropSource(open_waves(recipe, say), config, recipe.model.frame_samples, recipe.run.seed)
