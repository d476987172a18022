"""The model families: which networks belong together, and their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, model_validator

from resonate_audio.audio.mel import MEL_16K, MEL_44K, MelConfig
from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import InputError
from resonate_audio.core.sampling import (
    EVERYWHERE,
    MAX_STEPS,
    NO_GUIDANCE,
    Sampling,
    SolverSettings,
)
from resonate_audio.model.bigvgan import BigVGANConfig
from resonate_audio.model.flow_transformer import FlowTransformerConfig
from resonate_audio.model.lengths import num_latent_frames
from resonate_audio.model.linear_vae import AnyVAEConfig, LinearVAEConfig
from resonate_audio.model.parts_vocoder import PartsVocoderConfig
from resonate_audio.model.text_encoder import PooledEncoderConfig, TextEncoderConfig
from resonate_audio.model.vae import VAEConfig

MAX_MEAN_STEPS = 25
"""Steps beyond which mean velocities gain nothing; as many as the plain flow takes."""
MEAN_EDIT_STEPS = 12
"""Steps of mean velocities where a source is changed: what is made has to meet what is kept."""

VocoderConfig = Annotated[BigVGANConfig | PartsVocoderConfig, Field(discriminator="kind")]


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
    default_steps: int = Field(25, ge=1)
    """Solver steps when the caller asks for none."""
    default_guidance: float = Field(4.5, ge=0)
    """Guidance scale when the caller asks for none."""
    guidance_inside: bool = False
    """Whether the network was trained to predict guided velocities; then none can be added."""
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
                "text_encoder.pooled_dim",
                self.text_encoder.pooled_dim,
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
        if self.transformer.mean_velocity and not self.guidance_inside:
            raise ValueError("guidance_inside is false, but mean velocities have it inside")
        if self.guidance_inside and self.default_guidance != NO_GUIDANCE:
            raise ValueError(
                f"default_guidance {self.default_guidance:g}: expected {NO_GUIDANCE:g}, since "
                "guidance_inside is true"
            )
        if self.default_steps > self.max_steps:
            raise ValueError(f"default_steps {self.default_steps}: expected 1 to {self.max_steps}")
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
            way = ""
            if duration_s > longest_s == self.max_duration_s:
                way = " at once; `resonate generate` makes longer ones in windows, to ten minutes"
            elif duration_s > longest_s:
                way = "; make it in parts, and join them"
            raise InputError(
                f"duration of {duration_s} s: {self.name} makes {self.min_duration_s:g} to "
                f"{longest_s:g} s{way}"
            )

    def sampling(
        self,
        duration_s: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        **further: Any,
    ) -> Sampling:
        """Settings of a sound: what is asked for, and this model's own choice for the rest.

        Raises:
            InputError: one is unknown or out of range, here or for this model.
        """
        sampling = Sampling(
            self.default_duration_s if duration_s is None else duration_s,
            self.default_steps if num_inference_steps is None else num_inference_steps,
            self.default_guidance if guidance_scale is None else guidance_scale,
            **further,
        )
        self.check_sampling(sampling)
        return sampling

    def check_sampling(self, sampling: SolverSettings) -> None:
        """Refuse settings that this model does not have.

        Raises:
            InputError: names the setting and what this model takes.
        """
        steps, scale = sampling.num_inference_steps, sampling.guidance_scale
        if steps > self.max_steps:
            raise InputError(f"{steps} inference steps: {self.name} takes 1 to {self.max_steps}")
        if self.guidance_inside and scale != NO_GUIDANCE:
            raise InputError(
                f"guidance scale {scale:g}: {self.name} has its guidance inside, and none can be "
                "added; leave it out"
            )
        if self.transformer.mean_velocity and sampling.solver != "euler":
            raise InputError(
                f"solver {sampling.solver}: {self.name} predicts mean velocities, one evaluation "
                "a step, which only euler steps along; leave it out (and --fast: nothing is left "
                "to save)"
            )
        interval = sampling.guidance_interval
        if self.guidance_inside and interval != EVERYWHERE:
            raise InputError(
                f"guidance from {interval[0]:g} to {interval[1]:g}: {self.name} has its guidance "
                "inside; leave both out"
            )

    def check_negative(self, texts: Sequence[str]) -> None:
        """Refuse to say what not to hear where nothing listens to it.

        Raises:
            InputError: a text is given to a model with guidance inside.
        """
        if self.guidance_inside and any(texts):
            raise InputError(
                f"negative prompt {next(filter(None, texts))[:60]!r}: {self.name} has its "
                "guidance inside and takes none"
            )

    @property
    def max_steps(self) -> int:
        """Most solver steps."""
        return MAX_MEAN_STEPS if self.transformer.mean_velocity else MAX_STEPS

    @property
    def edit_steps(self) -> int:
        """Solver steps when a source is changed and the caller asks for none."""
        least = MEAN_EDIT_STEPS if self.transformer.mean_velocity else 1
        return max(self.default_steps, least)

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


def with_few_steps(config: ModelConfig, default_steps: int = 4) -> ModelConfig:
    """The configuration of a model whose flow was distilled: mean velocities, guidance inside."""
    values = config.model_dump() | {
        "transformer": config.transformer.model_dump() | {"mean_velocity": True},
        "default_steps": default_steps,
        "default_guidance": NO_GUIDANCE,
        "guidance_inside": True,
    }
    return ModelConfig.model_validate(values)


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

FLUXAUDIO_S = ModelConfig(
    name="fluxaudio-s",
    text_encoder=TextEncoderConfig(
        kind="t5",
        repo_id="google/flan-t5-large",
        dim=1024,
        pooled=PooledEncoderConfig(repo_id="lukewys/laion_clap", dim=512),
    ),
    transformer=FlowTransformerConfig(
        latent_channels=20,
        hidden=448,
        num_heads=7,
        num_joint_blocks=4,
        num_single_blocks=8,
        text_dim=1024,
        pooled_dim=512,
        num_text_tokens=77,
    ),
    vae=VAE_16K,
    vocoder=BIGVGAN_V1_16K,
    mel=MEL_16K,
    default_duration_s=9.975,
    max_duration_s=10.0,
    licence="MIT",
)
"""The published flow that MeanAudio began with, 120.2 M parameters, 16 kHz."""

MEANAUDIO_S = with_few_steps(FLUXAUDIO_S, default_steps=1).model_copy(
    update={"name": "meanaudio-s"}
)
"""MeanAudio of 120.5 M parameters: mean velocities, one step, no guidance to be added."""
MEANAUDIO_S_AC = MEANAUDIO_S.model_copy(update={"name": "meanaudio-s-ac"})
"""The same network, trained on AudioCaps alone."""
MEANAUDIO_L = MEANAUDIO_S.model_copy(
    update={
        "name": "meanaudio-l",
        "transformer": MEANAUDIO_S.transformer.model_copy(update={"hidden": 896, "num_heads": 14}),
    }
)
"""MeanAudio of 479.5 M parameters."""
MEANAUDIO = (FLUXAUDIO_S, MEANAUDIO_S, MEANAUDIO_S_AC, MEANAUDIO_L)

NANO_FLOW = ModelConfig(
    name="nano-flow",
    text_encoder=ALL_MINILM,
    transformer=FlowTransformerConfig(
        latent_channels=96,
        hidden=256,
        num_heads=4,
        num_joint_blocks=2,
        num_single_blocks=6,
        mlp_ratio=1.5,
        text_dim=384,
        pooled_dim=384,
        num_text_tokens=77,
        data_std=0.25,
    ),
    vae=LinearVAEConfig(num_bands=128, latent_channels=96, quiet_range=9.21),
    vocoder=PartsVocoderConfig(),
    mel=MEL_44K,
    default_duration_s=10.0,
    max_duration_s=10.0,
    default_guidance=3.0,
    licence="CC BY-SA 4.0",
)
"""The flow that nano was distilled from: 25 steps, guidance to be added (docs/nano.md)."""

NANO = with_few_steps(NANO_FLOW, default_steps=4).model_copy(update={"name": "nano"})
"""The embedded model: 44.1 kHz, up to 10 s, four steps, made for two CPU cores."""

PRESETS = {preset.name: preset for preset in (RESONATE, RESONATE_16K, *MEANAUDIO, NANO_FLOW, NANO)}
"""Every family by name."""
