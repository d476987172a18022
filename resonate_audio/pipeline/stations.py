"""What of a model the work with sounds needs: its stations, not how they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.edit import Edit
from resonate_audio.core.sampling import Sampling
from resonate_audio.core.types import Latents, Recipe, Waveform
from resonate_audio.flow.path import Velocity
from resonate_audio.model.flow_transformer import FlowEnds
from resonate_audio.model.folder import Vocoder
from resonate_audio.model.linear_vae import AnyVAE
from resonate_audio.model.presets import ModelConfig
from resonate_audio.pipeline.request import Batch


@runtime_checkable
class Stations(Protocol):
    """A model that is ready to generate."""

    config: ModelConfig
    device: torch.device
    transformer: FlowEnds
    vae: AnyVAE
    vocoder: Vocoder

    def velocity(
        self,
        batch: Batch,
        sampling: Sampling,
        times: Float[Tensor, " time"] | None = None,
    ) -> Velocity:
        """The guided velocity under each row's prompts; an empty prompt is the learned one."""
        ...

    def encode(self, wave: Waveform) -> Latents:
        """From station 5 back to 3: samples to the means of their latents."""
        ...

    def to_waveform(self, latents: Latents) -> Waveform:
        """Stations 4 and 5."""
        ...

    def recipe(
        self, batch: Batch, row: int, sampling: Sampling, gain: float, edit: Edit | None = None
    ) -> Recipe:
        """How one row of a batch was made."""
        ...

    def warn_of_cut_prompts(self, texts: Sequence[str]) -> None:
        """Say which texts are longer than the text encoder reads."""
        ...
