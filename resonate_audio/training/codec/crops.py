"""Random crops of decoded clips, for the trainers that learn from waveforms."""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.data.batches import BatchPlan
from resonate_audio.data.waveforms import WaveformSet, pieces, random_crops
from resonate_audio.training.loop.task import Draw, generator_for


class CropConfig(FrozenConfig):
    """How much sound one batch holds."""

    crop_s: float = Field(1.0, gt=0, le=600)
    """Length of a crop, rounded up to whole latent frames or hops."""
    rows_per_batch: int = Field(32, ge=1, le=100_000)
    gain_db: tuple[float, float] = (0.0, 0.0)
    """Each crop is made louder or softer by so much, uniformly."""
    mixed_share: float = Field(0.0, ge=0, le=1)
    """Share of crops that sound together with another of the batch."""
    late_share: float = Field(0.0, ge=0, le=1)
    """Share of crops that begin with silence, of up to a third of the crop."""

    @model_validator(mode="after")
    def _gains_are_ordered(self) -> CropConfig:
        if self.gain_db[0] > self.gain_db[1]:
            raise ValueError(f"gain_db {self.gain_db}: expected the smaller one first")
        return self

    @property
    def varied(self) -> bool:
        """Whether a crop is anything else than a piece of a clip."""
        return bool(self.gain_db != (0.0, 0.0) or self.mixed_share or self.late_share)


class CropSource:
    """Batches of crops; an epoch takes as many from a clip as it is crops long."""

    def __init__(self, waves: WaveformSet, config: CropConfig, multiple: int, seed: int) -> None:
        self.waves = waves
        self.config = config
        self.num_samples = -(-round(config.crop_s * waves.sample_rate_hz) // multiple) * multiple
        self.pieces = pieces(waves.lengths, self.num_samples)
        self.plan = BatchPlan([len(self.pieces)], [config.rows_per_batch], seed)

    def crops(self, draw: Draw) -> Float[Tensor, "row sample"]:
        """The crops of one batch, on the generator's device."""
        rows = self.plan.batch(draw.index).rows.numpy()
        # places are drawn on the CPU: reading them back from a GPU would make it wait
        generator = generator_for(self.plan.seed, draw.index, "cpu", "crops")
        crops = random_crops(self.waves, self.pieces[rows], self.num_samples, generator)
        if self.config.varied:
            crops = vary(crops, self.config, generator)
        return crops.to(draw.generator.device)

    def beginnings(self, num_clips: int) -> Float[Tensor, "row sample"]:
        """The first crop of evenly spaced clips: the same in every run, to look at and hear."""
        places = torch.linspace(0, len(self.waves.clips) - 1, num_clips).round().long().tolist()
        return torch.stack([self.waves.wave(clip, 0, self.num_samples) for clip in places])


LOUDEST = 0.99
"""Peak that a varied crop is brought down to."""
MOST_BELOW_DB = 20.0
"""How much softer the second sound of a mixture may be."""


def vary(
    crops: Float[Tensor, "row sample"], config: CropConfig, generator: torch.Generator
) -> Float[Tensor, "row sample"]:
    """Delay, mix and scale crops, each as the configuration's shares say."""
    rows, length = crops.shape
    late, mixed, below, gain = torch.rand(4, rows, 1, generator=generator)
    delays = (torch.rand(rows, generator=generator) * (length // 3)).long()
    delays = torch.where(late[:, 0] < config.late_share, delays, 0)
    crops = torch.stack([_delayed(*pair) for pair in zip(crops, delays.tolist(), strict=True)])
    second = crops.roll(1, 0) * 10 ** (-MOST_BELOW_DB * below / 20)
    crops = crops + second * (mixed < config.mixed_share)
    low, high = config.gain_db
    crops = crops * 10 ** ((low + (high - low) * gain) / 20)
    peaks = crops.abs().amax(dim=1, keepdim=True)
    return crops * (LOUDEST / peaks.clamp_min(LOUDEST))


def _delayed(wave: Float[Tensor, " sample"], delay: int) -> Float[Tensor, " sample"]:
    return torch.nn.functional.pad(wave, (delay, 0))[: len(wave)]
