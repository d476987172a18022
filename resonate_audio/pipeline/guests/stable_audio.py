"""Stable Audio Open as a guest: diffusers' ``StableAudioPipeline`` [arXiv:2407.14358].

The network predicts v = α·noise − β·data at the state α·data + β·noise with α² + β² = 1, and is
told the angle: α = cos(πτ/2), β = sin(πτ/2) [v-prediction, arXiv:2202.00512, appendix D]. The
published solver counts σ = β/α and τ = 2·atan(σ)/π. Our path is straight,

    x = (1 − t)·data + t·noise = (α·data + β·noise) / c,    c = 1/√((1 − t)² + t²),

with α = c·(1 − t) and β = c·t, so that σ = t/(1 − t) and τ = (2/π)·atan2(t, 1 − t). From
data = α·z − β·v̂ and noise = β·z + α·v̂ at z = c·x follows, since α + β = c,

    velocity = noise − data = (2t − 1)·c²·x + c·v̂(c·x, τ).

Differs from the published sampler: it begins at σ = 500 (τ = 0.9987), a path here at pure noise
(τ = 1), which is where the range of training ends.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resonate_audio.core.documents.json_text import read_object
from resonate_audio.core.errors import CheckpointError, InputError
from resonate_audio.core.foreign import quiet_loading
from resonate_audio.core.types import TextFeatures
from resonate_audio.model.checkpoint import write_weights
from resonate_audio.model.folder import writing_model
from resonate_audio.pipeline.guests.guest import (
    Guest,
    GuestConditions,
    GuestConfig,
    GuestNetwork,
    choose_duration,
    guest_folder,
    import_diffusers,
    read_pretrained,
)

INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
TRANSFORMER, WEIGHTS = "transformer", "diffusion_pytorch_model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
"""One of them holds the words; without, an empty tokenizer is made in silence."""
SOURCE = "stabilityai/stable-audio-open-1.0"
DEFAULT_STEPS, DEFAULT_GUIDANCE = 100, 7.0
"""Of the published pipeline."""


class StableAudioNetwork(GuestNetwork):
    """``StableAudioDiTModel`` as a velocity on the straight path."""

    def forward(
        self,
        z: Float[Tensor, "row frame channel"],
        t: Float[Tensor, " row"],
        conditions: GuestConditions,
    ) -> Float[Tensor, "row frame channel"]:
        """Predict noise − data; the equation stands at the head of this file."""
        level = t[:, None, None]
        scale = ((1 - level).square() + level.square()).rsqrt()
        predicted = self.transformer(
            (scale * z).mT,
            torch.atan2(t, 1 - t) * (2 / math.pi),
            encoder_hidden_states=conditions.tokens,
            global_hidden_states=conditions.pooled[:, None],
            rotary_embedding=self._angles(z.shape[1] + 1, z.device),
            return_dict=False,
        )[0].mT
        velocity: Tensor = (2 * level - 1) * scale.square() * z + scale * predicted
        return velocity

    def _angles(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the positions: frames, and before them the global token."""
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        settings: Any = self.transformer.config
        width = settings.attention_head_dim // 2
        cosine, sine = get_1d_rotary_pos_embed(
            width, length, use_real=True, repeat_interleave_real=False
        )
        return cosine.to(device), sine.to(device)


class StableAudio(Guest):
    """Stable Audio Open around its diffusion transformer."""

    def __init__(
        self, folder: Path, name: str, parts: Mapping[str, Any], duration_s: float | None
    ) -> None:
        """Put the parts of a pipeline together, by their names there.

        Raises:
            InputError: the model makes no sounds of that length.
        """
        transformer, vae = parts["transformer"], parts["vae"]
        rate_hz, hop = vae.config.sampling_rate, vae.hop_length
        window = transformer.config.sample_size
        longest_s = min(window * hop / rate_hz, float(parts["projection_model"].config.max_value))
        super().__init__(folder, vae, choose_duration(duration_s, longest_s))
        self.config = GuestConfig(
            name, rate_hz, hop, window, longest_s, DEFAULT_STEPS, DEFAULT_GUIDANCE
        )
        self.config.check_duration(self.duration_s)
        self.text_encoder: nn.Module = parts["text_encoder"].requires_grad_(False)
        self.projection: nn.Module = parts["projection_model"].requires_grad_(False)
        self.tokenizer = parts["tokenizer"]
        told = self.encode_text([""])
        empty = TextFeatures(torch.zeros_like(told.tokens), told.pooled)
        self.network = StableAudioNetwork(transformer, transformer.config.in_channels, empty)

    @classmethod
    def from_folder(cls, model: str, duration_s: float | None) -> StableAudio:
        """Load a folder that ``StableAudioPipeline.save_pretrained`` wrote.

        Args:
            model: ``stable-audio:FOLDER``.
            duration_s: length of the sounds, seconds; ten if None.

        Raises:
            ConfigError: diffusers is not installed.
            ModelNotFoundError: there is no such folder.
            CheckpointError: it is something else, or a part is missing or broken.
            InputError: the model makes no sounds of that length.
        """
        folder = guest_folder(model, (INDEX, SCHEDULER), SOURCE)
        check_parametrisation(folder / SCHEDULER)
        library = import_diffusers(model)
        from transformers import AutoTokenizer, T5EncoderModel

        kinds = {
            "transformer": library.StableAudioDiTModel,
            "vae": library.AutoencoderOobleck,
            "projection_model": library.StableAudioProjectionModel,
            "text_encoder": T5EncoderModel,
        }
        parts: dict[str, Any] = {
            name: read_pretrained(kind, folder, name) for name, kind in kinds.items()
        }
        with quiet_loading(folder / "tokenizer"):
            if not any((folder / "tokenizer" / name).is_file() for name in TOKENIZER_FILES):
                raise CheckpointError(
                    f"{folder / 'tokenizer'}: {' or '.join(TOKENIZER_FILES)} is missing"
                )
            parts["tokenizer"] = AutoTokenizer.from_pretrained(folder / "tokenizer")
        return cls(folder, model, parts, duration_s)

    def frozen(self) -> list[nn.Module]:
        """Decoder, text encoder, and what projects texts and seconds."""
        return [self.vae, self.text_encoder, self.projection]

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """Tokens of a text, then of start and end in seconds; pooled are start and end alone.

        Raises:
            InputError: there is no text.
        """
        if not texts:
            raise InputError("no prompt to encode: give at least one text")
        device = next(self.text_encoder.parameters()).device
        asked = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).to(device)
        mask = asked.attention_mask
        hidden = self.text_encoder(asked.input_ids, attention_mask=mask)[0]
        seconds = torch.tensor([0.0, self.duration_s], device=device)[:, None].expand(
            -1, len(texts)
        )
        told = self.projection(hidden, *seconds)
        start, end = told.seconds_start_hidden_states, told.seconds_end_hidden_states
        words = told.text_hidden_states * mask[..., None]
        return TextFeatures(torch.cat([words, start, end], 1), torch.cat([start, end], 2)[:, 0])

    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write the pipeline's folder with another transformer."""
        state = {name.removeprefix("transformer."): value for name, value in weights.items()}
        with writing_model(folder, overwrite=True, mark=INDEX) as temporary:
            others = shutil.ignore_patterns(TRANSFORMER, ".*")
            shutil.copytree(self.folder, temporary, dirs_exist_ok=True, ignore=others)
            (temporary / TRANSFORMER).mkdir()
            settings = Path(TRANSFORMER) / "config.json"
            shutil.copyfile(self.folder / settings, temporary / settings)
            write_weights(temporary / TRANSFORMER / WEIGHTS, state, {"format": "pt"})


def check_parametrisation(path: Path) -> None:
    """Refuse a model that predicts something else.

    Raises:
        CheckpointError: names the setting.
    """
    settings = read_object(path, CheckpointError)
    for name, expected in (("prediction_type", "v_prediction"), ("sigma_data", 1.0)):
        if settings.get(name) != expected:
            raise CheckpointError(
                f"{path}: {name} is {settings.get(name)!r}; expected {expected!r}, as in {SOURCE}"
            )
