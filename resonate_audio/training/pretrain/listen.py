"""Sounds of a flow transformer in training, from fixed prompts and seeds."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.audio.io import write_audio
from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.noise import seeded_noise
from resonate_audio.core.sampling import SolverSettings
from resonate_audio.core.types import Audio, TextFeatures
from resonate_audio.flow.mean_flow import sampling_velocity
from resonate_audio.flow.ode import solve
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.model.linear_vae import AnyVAE
from resonate_audio.training.loop.pictures import draw_mels


class ListenConfig(SolverSettings, FrozenConfig):
    """What to generate while training, and how."""

    prompts: tuple[str, ...] = ()
    duration_s: float = Field(5.0, gt=0)


class Listener:
    """Generates the same prompts with the same noise each time; prompt i has seed i."""

    def __init__(
        self,
        config: ListenConfig,
        features: TextFeatures,
        vae: AnyVAE,
        vocoder: nn.Module | None,
        num_frames: int,
        sample_rate_hz: int,
    ) -> None:
        self.config = config
        self.features = features
        self.vae = vae
        self.vocoder = vocoder
        self.num_frames = num_frames
        self.sample_rate_hz = sample_rate_hz

    def __call__(self, model: FlowTransformer, folder: Path, step: int) -> None:
        """Write a picture of the mels and, given a vocoder, one WAV per prompt."""
        mels = self.vae.decode(self.latents(model))
        draw_mels(folder / f"step-{step:08d}.png", {"generated": mels})
        if self.vocoder is None:
            return
        for number, samples in enumerate(self.vocoder(mels).float().cpu().numpy()):
            path = folder / f"step-{step:08d}-{number}.wav"
            write_audio(path, Audio(samples, self.sample_rate_hz), overwrite=True)

    def latents(self, model: FlowTransformer) -> Float[Tensor, "row frame channel"]:
        """Un-normalised latents of every prompt."""
        device = model.latent_mean.device
        num_rows, channels = len(self.config.prompts), model.config.latent_channels
        noise = seeded_noise(range(num_rows), self.num_frames, channels).to(device)
        velocity = sampling_velocity(
            model,
            model.condition(self.features),
            model.condition(model.empty_features(num_rows)),
            self.config,
            model.config.mean_velocity,
        )
        with torch.no_grad():
            return model.unnormalize(solve(velocity, noise, self.config))
