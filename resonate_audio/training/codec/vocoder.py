"""Train a vocoder: from mel to waveform, judged by spectra and, if asked, by an adversary."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.audio.io import write_audio
from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.types import Audio
from resonate_audio.model.checkpoint import write_weights
from resonate_audio.model.linear_vae import AnyVAE
from resonate_audio.training.codec.crops import CropSource
from resonate_audio.training.codec.discriminator import (
    SpectrogramJudges,
    feature_loss,
    fooling_loss,
    judge_loss,
)
from resonate_audio.training.codec.vocoder_loss import vocoder_loss
from resonate_audio.training.loop.task import Draw, Losses, Task, full_precision

CLIPS_HEARD = 4


class AdversaryConfig(FrozenConfig):
    """The judges a vocoder is trained against."""

    sizes: tuple[int, ...] = (256, 512, 1024)
    """STFT windows, samples."""
    width: int = Field(16, ge=1)
    start_step: int = Field(0, ge=0)
    """Updates before the judges have a say."""
    weight: float = Field(0.2, ge=0)
    feature_weight: float = Field(1.0, ge=0)


class VocoderObjective(FrozenConfig):
    """Weights of the vocoder's loss."""

    spectrum_weight: float = Field(1.0, ge=0)
    complex_weight: float = Field(0.5, ge=0)
    """Share of the phase-aware term within the spectral loss."""
    mel_weight: float = Field(1.0, ge=0)
    """Of the mean absolute difference of log-mels."""
    decoded_share: float = Field(0.0, ge=0, le=1)
    """Share of rows whose mel went through the VAE first, as in generation."""
    adversary: AdversaryConfig | None = None


class VocoderTask(Task):
    """Waveform reconstruction over random crops."""

    def __init__(
        self,
        model: nn.Module,
        mel: MelFrontEnd,
        source: CropSource,
        objective: VocoderObjective,
        vae: AnyVAE | None = None,
    ) -> None:
        self.model = model
        self.phases = {"model": model}
        self.mel = mel
        self.hop_samples = mel.config.hop_samples
        self.source = source
        self.objective = objective
        self.vae = vae
        self.judges: SpectrogramJudges | None = None
        if objective.adversary is not None:
            self.judges = SpectrogramJudges(objective.adversary.sizes, objective.adversary.width)
            self.judges.to(next(model.parameters()).device)
            self.phases = {"model": model, "judges": self.judges}
        self._heard: dict[int, tuple[Tensor, Tensor]] = {}

    def loss(self, phase: str, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        """The vocoder's loss, then the judges' over the same sounds."""
        return self._judges_loss(draw) if phase == "judges" else self._vocoder_loss(draw)

    def _vocoder_loss(self, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        device = draw.generator.device
        wave = self.source.crops(draw)
        with full_precision(device):
            mel = self.mel(wave)
        made = self.model(self._vocoder_input(mel, draw)).float()[:, : wave.shape[1]]
        wave, mel = wave[:, : made.shape[1]], mel[:, :, : made.shape[1] // self.hop_samples]
        with full_precision(device):
            parts = vocoder_loss(made, wave, self.objective.complex_weight)
            mel_error = (self.mel(made) - mel).abs().mean()
        total = self.objective.spectrum_weight * parts.total
        total = total + self.objective.mel_weight * mel_error
        extra = {"spectrum_loss": parts.total.detach(), "mel_loss": mel_error.detach()}
        against, opinions = self._adversary_loss(wave, made, draw)
        return total + against, extra | opinions

    def _adversary_loss(
        self, wave: Float[Tensor, "row sample"], made: Float[Tensor, "row sample"], draw: Draw
    ) -> tuple[Tensor | float, Losses]:
        adversary = self.objective.adversary
        if self.judges is None or adversary is None:
            return 0.0, {}
        self._heard[draw.index] = (wave, made.detach())
        if draw.step < adversary.start_step:
            return 0.0, {}
        opinion, reference = self.judges(made), self.judges(wave)
        fooling, features = fooling_loss(opinion), feature_loss(reference, opinion)
        total = adversary.weight * fooling + adversary.feature_weight * features
        return total, {"fooling_loss": fooling.detach(), "feature_loss": features.detach()}

    def _judges_loss(self, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        assert self.judges is not None
        recorded, made = self._heard.pop(draw.index)
        return judge_loss(self.judges(recorded), self.judges(made)), {}

    def _vocoder_input(
        self, mel: Float[Tensor, "row band hop"], draw: Draw
    ) -> Float[Tensor, "row band hop"]:
        """The mel, or what the VAE makes of it in a share of the rows."""
        if self.vae is None or self.objective.decoded_share == 0:
            return mel
        with torch.no_grad():
            decoded = self.vae.decode(self.vae.encode(mel).mean).float()
        hops = min(mel.shape[2], decoded.shape[2])
        uniform = torch.rand(len(mel), generator=draw.generator, device=mel.device)
        chosen = (uniform < self.objective.decoded_share)[:, None, None]
        return torch.where(chosen, decoded[:, :, :hops], mel[:, :, :hops])

    def sample(self, folder: Path, step: int) -> None:
        """Write a few clips as recorded and as rebuilt from their mel."""
        device = next(self.model.parameters()).device
        waves = self.source.beginnings(CLIPS_HEARD).to(device)
        made = self.model(self.mel(waves))
        rate = self.source.waves.sample_rate_hz
        for kind, sounds in (("recorded", waves), ("rebuilt", made)):
            for number, samples in enumerate(sounds.float().cpu().numpy()):
                path = folder / f"step-{step:08d}-{number}-{kind}.wav"
                write_audio(path, Audio(samples, rate), overwrite=True)

    def export(self, folder: Path) -> None:
        """Write the averaged weights."""
        write_weights(folder / "model.safetensors", self.model.state_dict(), {})
