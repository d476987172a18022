"""The model families: which networks belong together, and their sizes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, model_validator

from resonate_audio.audio.mel import MEL_16K, MEL_44K, MelConfig
from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import InputError
from resonate_audio.model.bigvgan import BigVGANConfig
from resonate_audio.model.flow_transformer import FlowTransformerConfig
from resonate_audio.model.istft_vocoder import ISTFTVocoderConfig
from resonate_audio.model.lengths import num_latent_frames
from resonate_audio.model.linear_vae import AnyVAEConfig, LinearVAEConfig
from resonate_audio.model.parts_vocoder import PartsVocoderConfig
from resonate_audio.model.text_encoder import TextEncoderConfig
from resonate_audio.model.vae import VAEConfig

VocoderConfig = Annotated[
    BigVGANConfig | ISTFTVocoderConfig | PartsVocoderConfig, Field(discriminator="kind")
]


class ModelConfig(FrozenConfig):
    """One text-to-audio model: five networks whose sizes agree."""

    name: str = Field(min_length=1)
    text_encoder: TextEncoderConfig
    transformer: FlowTransformerConfig
    vae: Annotated[AnyVAEConfig, Field(discriminator="kind")]
    vocoder: VocoderConfig
    mel: MelConfig
    default_duration_s: PositiveFloat
    """Length of a sound when the caller asks for none, seconds."""
    min_duration_s: PositiveFloat = 0.1
    """Shortest sound, seconds."""
    max_duration_s: PositiveFloat
    """Longest sound the model was trained for, seconds."""
    licence: str = "see the publisher's page"
    """Licence of the weights."""

    @model_validator(mode="after")
    def _sizes_agree(self) -> ModelConfig:
        pairs = (
            ("vae.num_bands", self.vae.num_bands, "mel.num_bands", self.mel.num_bands),
            ("vocoder.num_bands", self.vocoder.num_bands, "mel.num_bands", self.mel.num_bands),
            ("vocoder.hop_samples", self.vocoder.hop_samples, "mel", self.mel.hop_samples),
            ("vocoder.sample_rate_hz", self.vocoder.sample_rate_hz, "mel", self.mel.sample_rate_hz),
            (
                "transformer.latent_channels",
                self.transformer.latent_channels,
                "vae.latent_channels",
                self.vae.latent_channels,
            ),
            (
                "transformer.text_dim",
                self.transformer.text_dim,
                "text_encoder.dim",
                self.text_encoder.dim,
            ),
            (
                "transformer.pooled_dim",
                self.transformer.pooled_dim,
                "text_encoder.dim",
                self.text_encoder.dim,
            ),
            (
                "transformer.num_text_tokens",
                self.transformer.num_text_tokens,
                "text_encoder.num_tokens",
                self.text_encoder.num_tokens,
            ),
        )
        for name, value, other, expected in pairs:
            if value != expected:
                raise ValueError(f"{name} is {value}, but {other} has {expected}")
        if not self.min_duration_s <= self.default_duration_s <= self.max_duration_s:
            raise ValueError(
                f"default_duration_s {self.default_duration_s}: expected "
                f"{self.min_duration_s} to {self.max_duration_s}"
            )
        if self.num_frames(self.max_duration_s) > self.transformer.max_frames:
            raise ValueError(
                f"max_duration_s {self.max_duration_s}: {self.num_frames(self.max_duration_s)} "
                f"latent frames, but transformer.max_frames is {self.transformer.max_frames}"
            )
        return self

    def check_duration(self, duration_s: float, longest_s: float | None = None) -> None:
        """Refuse a length that the model was not made for.

        Args:
            duration_s: seconds.
            longest_s: longest sound; by default what the model takes at once.

        Raises:
            InputError: names the length and the range.
        """
        longest_s = self.max_duration_s if longest_s is None else longest_s
        if not self.min_duration_s <= duration_s <= longest_s:
            raise InputError(
                f"duration of {duration_s} s: {self.name} makes {self.min_duration_s:g} to "
                f"{longest_s:g} s"
            )

    @property
    def frame_samples(self) -> int:
        """Samples of one latent frame."""
        return self.mel.hop_samples * self.vae.hops_per_frame

    @property
    def frame_rate_hz(self) -> float:
        """Latent frames per second."""
        return self.mel.sample_rate_hz / self.frame_samples

    def num_frames(self, duration_s: float) -> int:
        """Latent frames that cover ``duration_s`` seconds."""
        return num_latent_frames(duration_s, self.mel.sample_rate_hz, self.frame_samples)


FLAN_T5_LARGE = TextEncoderConfig(kind="t5", repo_id="google/flan-t5-large", dim=1024)
ALL_MINILM = TextEncoderConfig(
    kind="minilm", repo_id="sentence-transformers/all-MiniLM-L6-v2", dim=384
)

VAE_44K = VAEConfig(num_bands=128, latent_channels=40, hidden=512)
VAE_16K = VAEConfig(num_bands=80, latent_channels=20, hidden=384)
BIGVGAN_V2_44K = BigVGANConfig(
    version=2,
    sample_rate_hz=44_100,
    num_bands=128,
    upsample_rates=(8, 4, 2, 2, 2, 2),
    upsample_kernels=(16, 8, 4, 4, 4, 4),
)
BIGVGAN_V1_16K = BigVGANConfig(
    version=1,
    sample_rate_hz=16_000,
    num_bands=80,
    upsample_rates=(4, 4, 2, 2, 2, 2),
    upsample_kernels=(8, 8, 4, 4, 4, 4),
)

RESONATE = ModelConfig(
    name="resonate",
    text_encoder=FLAN_T5_LARGE,
    transformer=FlowTransformerConfig(
        latent_channels=40,
        hidden=448,
        num_heads=7,
        num_joint_blocks=16,
        num_single_blocks=36,
        text_dim=1024,
        pooled_dim=1024,
        num_text_tokens=77,
    ),
    vae=VAE_44K,
    vocoder=BIGVGAN_V2_44K,
    mel=MEL_44K,
    default_duration_s=10.0,
    max_duration_s=10.0,
)
"""The published model of 468 M parameters, 44.1 kHz."""

RESONATE_16K = RESONATE.model_copy(
    update={
        "name": "resonate-16k",
        "transformer": RESONATE.transformer.model_copy(update={"latent_channels": 20}),
        "vae": VAE_16K,
        "vocoder": BIGVGAN_V1_16K,
        "mel": MEL_16K,
    }
)
"""The same flow over the published 16 kHz VAE and vocoder; no flow weights are published for it."""

NANO = ModelConfig(
    name="nano",
    text_encoder=ALL_MINILM,
    transformer=FlowTransformerConfig(
        latent_channels=64,
        hidden=192,
        num_heads=3,
        num_joint_blocks=2,
        num_single_blocks=4,
        mlp_ratio=2.0,
        text_dim=384,
        pooled_dim=384,
        num_text_tokens=77,
    ),
    vae=LinearVAEConfig(num_bands=80, latent_channels=64),
    vocoder=ISTFTVocoderConfig(),
    mel=MEL_16K,
    default_duration_s=5.0,
    max_duration_s=5.0,
    licence="CC BY-SA 4.0",
)
"""The embedded model: 16 kHz, up to 5 s, made for two CPU cores."""

NANO2 = ModelConfig(
    name="nano2",
    text_encoder=ALL_MINILM,
    transformer=NANO.transformer.model_copy(
        update={
            "latent_channels": 96,
            "hidden": 256,
            "num_heads": 4,
            "num_single_blocks": 6,
            "mlp_ratio": 1.5,
        }
    ),
    vae=LinearVAEConfig(num_bands=128, latent_channels=96, quiet_range=9.21),
    vocoder=PartsVocoderConfig(),
    mel=MEL_44K,
    default_duration_s=10.0,
    max_duration_s=10.0,
    licence="CC BY-SA 4.0",
)
"""The embedded model to come: 44.1 kHz, up to 10 s. Only its VAE and vocoder are trained so far."""

PRESETS = {preset.name: preset for preset in (RESONATE, RESONATE_16K, NANO, NANO2)}
"""Every family by name."""
