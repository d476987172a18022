"""Train a vocoder: from mel to waveform, judged by spectra and, if asked, by an adversary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.audio.io import write_audio
from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.config import FrozenConfig, NetworkConfig
from resonate_audio.core.errors import ConfigError
from resonate_audio.core.types import Audio
from resonate_audio.model.checkpoint import write_weights
from resonate_audio.model.linear_vae import AnyVAE
from resonate_audio.model.parts_vocoder import PartsVocoder
from resonate_audio.training.codec.crops import CropSource
from resonate_audio.training.codec.discriminator import (
    SpectrogramJudges,
    feature_loss,
    fooling_loss,
    judge_loss,
)
from resonate_audio.training.codec.sine_loss import analyze_bands, share_loss, sine_loss
from resonate_audio.training.codec.vocoder_loss import vocoder_loss
from resonate_audio.training.loop.task import Draw, Losses, Task, full_precision

CLIPS_HEARD = 4


class AdversaryConfig(NetworkConfig):
    """The judges a vocoder is trained against."""

    sizes: tuple[int, ...] = Field((256, 1024, 4096), min_length=1)
    """STFT windows, samples."""
    judges_per_step: int | None = Field(None, ge=1)
    """So many of them, drawn anew, hear each batch; None is all."""
    width: int = Field(96, ge=1)
    start_step: int = Field(0, ge=0)
    """Updates before the judges have a say."""
    weight: float = Field(0.2, ge=0)
    feature_weight: float = Field(1.0, ge=0)


class VocoderObjective(FrozenConfig):
    """Weights of the vocoder's loss."""

    sizes: tuple[int, ...] = Field((256, 512, 1024, 2048, 4096), min_length=1)
    """STFT windows that spectra are compared with, samples."""
    sizes_per_step: int | None = Field(None, ge=1)
    """So many of them, drawn anew, compare each batch; None is all."""
    magnitude_weight: float = Field(1.0, ge=0)
    convergence_weight: float = Field(1.0, ge=0)
    band_weight: float = Field(0.0, ge=0)
    complex_weight: float = Field(0.5, ge=0)
    """Of the phase-aware term; the vocoder of parts, whose phases run on, needs it at 0."""
    mel_weight: float = Field(1.0, ge=0)
    """Of the mean absolute difference of log-mels."""
    sine_weight: float = Field(0.0, ge=0)
    """Of the distance of sines from the recording's frequencies (vocoder of parts only)."""
    share_weight: float = Field(0.0, ge=0)
    """Of the distance of sines' and noise's amplitudes from the recording's tonality (the same)."""
    variety: float = Field(0.0, ge=0, le=1)
    """Above 0, each sound is made twice with other noise, and their distance counts for it; 1 is
    the energy distance (vocoder of parts only)."""
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
        wants_parts = objective.sine_weight or objective.share_weight or objective.variety
        if wants_parts and not isinstance(model, PartsVocoder):
            raise ConfigError(
                "objective.sine_weight, share_weight, variety: only a vocoder of kind parts has "
                "sines and noise"
            )
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
            given = self._vocoder_input(mel, draw)
        made, second, extra = self._synthesize(given, wave)
        wave, mel = wave[:, : made.shape[1]], mel[:, :, : made.shape[1] // self.hop_samples]
        with full_precision(device):
            total, spectral = self._spectral_loss(made, second, wave, mel, draw)
        sounds = [made] if second is None else [made, second]
        against, opinions = self._adversary_loss([wave, *sounds], draw)
        total = total + against
        if extra:
            total = total + self.objective.sine_weight * extra["sine_loss"]
            total = total + self.objective.share_weight * extra["share_loss"]
        return total, {k: v.detach() for k, v in (spectral | extra | opinions).items()}

    def _synthesize(
        self, mel: Float[Tensor, "row band hop"], wave: Float[Tensor, "row sample"]
    ) -> tuple[Float[Tensor, "row sample"], Float[Tensor, "row sample"] | None, Losses]:
        """The sound, a second draw if wanted, and the distance of its sines where that counts."""
        if not isinstance(self.model, PartsVocoder):
            return self.model(mel).float()[:, : wave.shape[1]], None, {}
        parts, weights = self.model.parts(mel), self.objective
        with full_precision(mel.device):
            made = self.model.add(parts)
            second = self.model.add(parts) if weights.variety else None
            if not weights.sine_weight and not weights.share_weight:
                return made, second, {}
            bands = analyze_bands(wave, self.mel.config)
            return (
                made,
                second,
                {
                    "sine_loss": sine_loss(parts.sine_hz, bands),
                    "share_loss": share_loss(parts.sine_share, parts.noise_share, bands),
                },
            )

    def _spectral_loss(
        self,
        made: Float[Tensor, "row sample"],
        second: Float[Tensor, "row sample"] | None,
        wave: Float[Tensor, "row sample"],
        mel: Float[Tensor, "row band hop"],
        draw: Draw,
    ) -> tuple[Float[Tensor, ""], Losses]:
        weights = self.objective
        chosen = choose(len(weights.sizes), weights.sizes_per_step, draw)
        parts = vocoder_loss(
            made,
            wave,
            self.mel.config.sample_rate_hz,
            [weights.sizes[number] for number in chosen],
            with_phase=weights.complex_weight > 0,
            second=second,
            variety=weights.variety,
        )
        spectrum = (
            weights.magnitude_weight * parts.log_magnitude
            + weights.convergence_weight * parts.convergence
            + weights.band_weight * parts.bands
            + weights.complex_weight * parts.complex_error
        )
        if not weights.mel_weight:
            return spectrum, {"spectrum_loss": spectrum}
        mel_error = (self.mel(made) - mel).abs().mean()
        total = spectrum + weights.mel_weight * mel_error
        return total, {"spectrum_loss": spectrum, "mel_loss": mel_error}

    def _adversary_loss(
        self, waves: Sequence[Float[Tensor, "row sample"]], draw: Draw
    ) -> tuple[Tensor | float, Losses]:
        """What the judges say of the recording, the sound made of it and a second draw, if any."""
        adversary = self.objective.adversary
        if self.judges is None or adversary is None:
            return 0.0, {}
        # A judge's patches must not know where the hops are.
        most = min(2 * self.hop_samples, waves[0].shape[1] // 2)
        skip = int(torch.randint(most, (), generator=draw.generator, device=waves[0].device))
        wave, *sounds = (wave[:, skip:] for wave in waves)
        self._heard[draw.index] = (wave, sounds[0].detach())
        if draw.step < adversary.start_step:
            return 0.0, {}
        chosen = choose(len(adversary.sizes), adversary.judges_per_step, draw)
        self.judges.requires_grad_(False)
        opinion, *second = (self.judges(sound, chosen) for sound in sounds)
        with torch.no_grad():
            reference = self.judges(wave, chosen)
        fooling = fooling_loss(opinion)
        features = feature_loss(reference, opinion, *second)
        total = adversary.weight * fooling + adversary.feature_weight * features
        return total, {"fooling_loss": fooling, "feature_loss": features}

    def _judges_loss(self, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        assert self.judges is not None
        assert self.objective.adversary is not None
        adversary = self.objective.adversary
        recorded, made = self._heard.pop(draw.index)
        self.judges.requires_grad_(True)
        chosen = choose(len(adversary.sizes), adversary.judges_per_step, draw)
        return judge_loss(self.judges(recorded, chosen), self.judges(made, chosen)), {}

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


def choose(count: int, wanted: int | None, draw: Draw) -> list[int]:
    """``wanted`` of the numbers below ``count``, drawn for this batch; None is all of them."""
    if wanted is None or wanted >= count:
        return list(range(count))
    device = draw.generator.device
    numbers: list[int] = torch.randperm(count, generator=draw.generator, device=device).tolist()
    return sorted(numbers[:wanted])
