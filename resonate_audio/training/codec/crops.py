"""Random crops of decoded clips, for the trainers that learn from waveforms."""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.data.batches import BatchPlan
from resonate_audio.data.waveforms import WaveformSet, pieces, random_crops
from resonate_audio.training.loop.task import Draw, generator_for


class CropConfig(FrozenConfig):
    """How much sound one batch holds."""

    crop_s: float = Field(1.0, gt=0)
    """Length of a crop, rounded up to whole latent frames or hops."""
    rows_per_batch: int = Field(32, ge=1)


class CropSource:
    """Batches of crops; an epoch takes as many from a clip as it is crops long."""

    def __init__(self, waves: WaveformSet, config: CropConfig, multiple: int, seed: int) -> None:
        self.waves = waves
        self.num_samples = -(-round(config.crop_s * waves.sample_rate_hz) // multiple) * multiple
        self.pieces = pieces(waves.lengths, self.num_samples)
        self.plan = BatchPlan([len(self.pieces)], [config.rows_per_batch], seed)

    def crops(self, draw: Draw) -> Float[Tensor, "row sample"]:
        """The crops of one batch, on the generator's device."""
        rows = self.plan.batch(draw.index).rows.numpy()
        # places are drawn on the CPU: reading them back from a GPU would make it wait
        generator = generator_for(self.plan.seed, draw.index, "cpu", "crops")
        crops = random_crops(self.waves, self.pieces[rows], self.num_samples, generator)
        return crops.to(draw.generator.device)

    def beginnings(self, num_clips: int) -> Float[Tensor, "row sample"]:
        """The first crop of evenly spaced clips: the same in every run, to look at and hear."""
        places = torch.linspace(0, len(self.waves.clips) - 1, num_clips).round().long().tolist()
        return torch.stack([self.waves.wave(clip, 0, self.num_samples) for clip in places])
