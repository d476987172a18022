"""Train the mel VAE: reconstruct log-mels from latents close to a normal."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.config import FrozenConfig
from resonate_audio.model.checkpoint import write_weights
from resonate_audio.model.vae import MelVAE
from resonate_audio.training.codec.crops import CropSource
from resonate_audio.training.codec.vae_loss import vae_loss
from resonate_audio.training.loop.pictures import draw_mels
from resonate_audio.training.loop.task import Draw, Losses, Task, full_precision

CLIPS_SHOWN = 4
STATISTICS_CLIPS = 2000


class VAEObjective(FrozenConfig):
    """Weights of the VAE's loss."""

    kl_weight: float = Field(1e-3, ge=0)
    detail_weight: float = Field(0.5, ge=0)


class VAETask(Task):
    """Mel reconstruction over random crops."""

    def __init__(
        self, model: MelVAE, mel: MelFrontEnd, source: CropSource, objective: VAEObjective
    ) -> None:
        self.model = model
        self.phases = {"model": model}
        self.mel = mel
        self.source = source
        self.objective = objective

    def loss(self, phase: str, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        """Reconstruction in units of the per-band deviation, and KL."""
        with full_precision(draw.generator.device):
            target = normalized_mel(self.model, self.mel(self.source.crops(draw)))
        posterior = self.model.encode_normalized(target)
        mean, std = posterior.mean.float(), posterior.std.float()
        noise = torch.randn(mean.shape, generator=draw.generator, device=mean.device)
        predicted = self.model.decode_normalized(mean + std * noise).float()
        parts = vae_loss(
            predicted,
            target,
            mean,
            std,
            self.objective.kl_weight,
            self.objective.detail_weight,
        )
        return parts.total, {
            "reconstruction_loss": parts.reconstruction.detach(),
            "detail_loss": parts.detail.detach(),
            "kl_loss": parts.kl.detach(),
        }

    def sample(self, folder: Path, step: int) -> None:
        """Draw a few mels above their reconstructions."""
        device = self.model.data_mean.device
        mels = self.mel(self.source.beginnings(CLIPS_SHOWN).to(device))
        decoded = self.model.decode(self.model.encode(mels).mean)
        draw_mels(folder / f"step-{step:08d}.png", {"recorded": mels, "decoded": decoded})

    def export(self, folder: Path) -> None:
        """Write the averaged weights, not folded."""
        write_weights(folder / "model.safetensors", self.model.state_dict(), {})


def normalized_mel(
    model: MelVAE, mel: Float[Tensor, "row band hop"]
) -> Float[Tensor, "row band hop"]:
    """Log-mel in units of the per-band deviation."""
    return (mel - model.data_mean) / model.data_std


@torch.no_grad()
def set_mel_statistics(model: MelVAE, mel: MelFrontEnd, source: CropSource) -> None:
    """Store mean and deviation per band over the beginnings of up to 2,000 clips."""
    device = model.data_mean.device
    waves = source.beginnings(min(STATISTICS_CLIPS, len(source.waves.clips)))
    mels = torch.cat([mel(part.to(device)) for part in waves.split(32)])  # type: ignore[no-untyped-call]
    std, mean = torch.std_mean(mels.double(), dim=(0, 2))
    model.set_data_statistics(mean.float(), std.clamp_min(1e-3).float())
