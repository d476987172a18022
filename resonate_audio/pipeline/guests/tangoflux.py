"""TangoFlux as a guest [arXiv:2412.21037]: a Flux transformer over the latents of Stable Audio.

Its time is ours: it was trained on x = (1 − σ)·data + σ·noise to predict noise − data, and is told
σ, 1 = noise. A folder is what ``hf download declare-lab/TangoFlux`` gives::

    config.json             sizes, and which text encoder
    tangoflux.safetensors   transformer, text encoder, and what projects texts and seconds
    vae.safetensors         diffusers' AutoencoderOobleck, with the sizes of its defaults

and may hold ``text_encoder/`` with ``config.json`` and ``tokenizer.json`` of FLAN-T5, which are
otherwise fetched, and in ``config.json`` a ``vae`` with sizes that are not the defaults.

Differs from the published code: padding is left out of the attention instead of out of the batch,
so that a prompt alone and in a batch have the same velocity, the one that the published code gives
a prompt alone. Prompts are cut at 64 tokens, as in its training; its sampler reads 512.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.core.config import NetworkConfig, parse_config
from resonate_audio.core.documents.json_text import read_object
from resonate_audio.core.errors import CheckpointError, InputError
from resonate_audio.core.foreign import foreign_code
from resonate_audio.core.room import refuse_too_large
from resonate_audio.core.types import TextFeatures
from resonate_audio.model.checkpoint import (
    State,
    load_strict,
    read_tokenizer,
    read_weights,
    write_weights,
)
from resonate_audio.model.folder import skip_random_weights, writing_model
from resonate_audio.model.hub_client import fetch
from resonate_audio.pipeline.guests.guest import (
    Guest,
    GuestConditions,
    GuestConfig,
    GuestNetwork,
    check_sizes,
    choose_duration,
    guest_folder,
    import_diffusers,
)

CONFIG, WEIGHTS, VAE_WEIGHTS = "config.json", "tangoflux.safetensors", "vae.safetensors"
TEXT_ENCODER, ENCODER_FILES = "text_encoder", ("config.json", "tokenizer.json")
SOURCE = "declare-lab/TangoFlux"
NUM_TOKENS = 64
DEFAULT_STEPS, DEFAULT_GUIDANCE = 25, 4.5
"""Of the published code."""
SHARED, SECOND_NAME = "shared.weight", "encoder.embed_tokens.weight"
SECONDS = "duration_emebdder"
"""As the published weights spell it."""


class TangoFluxSizes(NetworkConfig):
    """Fields of ``config.json``, and what they are where it has none."""

    num_layers: int = Field(6, ge=1)
    num_single_layers: int = Field(18, ge=1)
    in_channels: int = Field(64, ge=1)
    attention_head_dim: int = Field(128, ge=1)
    joint_attention_dim: int = Field(1024, ge=1)
    num_attention_heads: int = Field(8, ge=1)
    audio_seq_len: int = Field(645, ge=1)
    """Latent frames."""
    max_duration: int = Field(30, ge=1)
    """Seconds."""


SIZES = frozenset(TangoFluxSizes.model_fields)
OF_SOUNDS = ("audio_seq_len", "max_duration")
"""Sizes that are not the transformer's."""


class TangoFluxNetwork(GuestNetwork):
    """``FluxTransformer2DModel`` over latent frames, none of whose text has a position."""

    def __init__(self, transformer: Any, latent_channels: int, empty: TextFeatures) -> None:
        super().__init__(transformer, latent_channels, empty)
        # The network casts its time to what this layer gives: bf16 would round 0.9 to 0.898.
        transformer.x_embedder.register_forward_hook(at_least_float32)

    def condition(self, features: TextFeatures) -> GuestConditions:
        """Take off the last channel, which says of each token whether it is heard."""
        heard = features.tokens[..., -1] > 0
        return GuestConditions(features.tokens[..., :-1], features.pooled, heard)

    def forward(
        self,
        z: Float[Tensor, "row frame channel"],
        t: Float[Tensor, " row"],
        conditions: GuestConditions,
    ) -> Float[Tensor, "row frame channel"]:
        """Predict noise − data."""
        num_tokens, num_frames = conditions.tokens.shape[1], z.shape[1]
        frames = torch.arange(num_frames, device=z.device)
        heard = torch.cat([conditions.heard, torch.ones_like(z[..., 0], dtype=torch.bool)], 1)
        velocity: Tensor = self.transformer(
            hidden_states=z,
            timestep=t,
            encoder_hidden_states=conditions.tokens,
            pooled_projections=conditions.pooled,
            txt_ids=torch.zeros(num_tokens, 3, device=z.device),
            img_ids=frames[:, None].expand(-1, 3),
            joint_attention_kwargs={"attention_mask": heard[:, None, None]},
            return_dict=False,
        )[0]
        return velocity


class TangoFlux(Guest):
    """TangoFlux around its transformer."""

    def __init__(
        self, folder: Path, name: str, sizes: TangoFluxSizes, parts: Mapping[str, Any],
        duration_s: float | None,
    ) -> None:  # fmt: skip
        """Put the parts together.

        Args:
            folder: what they were read from.
            name: as a recipe names it.
            sizes: of its ``config.json``.
            parts: ``transformer``, ``vae``, ``text_encoder``, ``fc``, ``seconds``, ``tokenizer``.
            duration_s: length of the sounds, seconds; ten if None.

        Raises:
            InputError: the model makes no sounds of that length.
        """
        vae, longest_s = parts["vae"], float(sizes.max_duration)
        rate_hz, window = vae.config.sampling_rate, sizes.audio_seq_len
        longest_s = min(longest_s, window * vae.hop_length / rate_hz)
        super().__init__(folder, vae, choose_duration(duration_s, longest_s))
        self.config = GuestConfig(
            name, rate_hz, vae.hop_length, window, longest_s, DEFAULT_STEPS, DEFAULT_GUIDANCE
        )
        self.config.check_duration(self.duration_s)
        self.text_encoder, self.fc, self.seconds = (
            parts[part].eval().requires_grad_(False) for part in ("text_encoder", "fc", "seconds")
        )
        self.tokenizer = parts["tokenizer"]
        self.network = TangoFluxNetwork(
            parts["transformer"], sizes.in_channels, self.encode_text([""])
        )

    @classmethod
    def from_folder(cls, model: str, duration_s: float | None) -> TangoFlux:
        """Load a folder of the published form.

        Args:
            model: ``tangoflux:FOLDER``.
            duration_s: length of the sounds, seconds; ten if None.

        Raises:
            ConfigError: diffusers is not installed, or a size is no number, or too large.
            ModelNotFoundError: there is no such folder, or no text encoder's tokenizer.
            CheckpointError: a file is missing or broken, or a weight misshapen; names the first.
            InputError: the model makes no sounds of that length.
        """
        folder = guest_folder(model, (CONFIG, WEIGHTS, VAE_WEIGHTS), SOURCE)
        settings = read_object(folder / CONFIG, CheckpointError)
        own = {name: value for name, value in settings.items() if name in SIZES}
        sizes = parse_config(TangoFluxSizes, own, str(folder / CONFIG))
        encoder = encoder_folder(folder, settings)
        parts = build_parts(import_diffusers(model), folder, encoder, sizes, settings.get("vae"))
        state = read_weights(folder / WEIGHTS)
        prefixes = {"transformer": "transformer", "text_encoder": "text_encoder"}
        prefixes |= {"fc": "fc", "seconds": SECONDS}
        for part, prefix in prefixes.items():
            load_part(parts[part], state, f"{prefix}.", folder / WEIGHTS)
        load_strict(parts["vae"], read_weights(folder / VAE_WEIGHTS), str(folder / VAE_WEIGHTS))
        parts["tokenizer"] = padding_tokenizer(encoder / "tokenizer.json")
        return cls(folder, model, sizes, parts, duration_s)

    def frozen(self) -> list[nn.Module]:
        """Decoder, text encoder, and what projects texts and seconds."""
        return [self.vae, self.text_encoder, self.fc, self.seconds]

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """Tokens of a text, then of the length; a last channel says which of them are heard.

        Raises:
            InputError: there is no text.
        """
        if not texts:
            raise InputError("no prompt to encode: give at least one text")
        device = next(self.text_encoder.parameters()).device
        asked = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([one.ids for one in asked], device=device)
        heard = torch.tensor([one.attention_mask for one in asked], device=device)
        words = self.text_encoder(input_ids=ids, attention_mask=heard)[0]
        pooled = self.fc(mean_heard(words, heard.bool()))
        length = self.seconds(torch.full((len(texts),), self.duration_s, device=device))
        tokens = torch.cat([words, length], 1)
        heard = torch.cat([heard, torch.ones_like(heard[:, :1])], 1)
        return TextFeatures(torch.cat([tokens, heard[..., None].to(tokens.dtype)], 2), pooled)

    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write a folder of the published form, with the two files of its text encoder."""
        encoder = encoder_folder(self.folder, read_object(self.folder / CONFIG, CheckpointError))
        others = read_weights(self.folder / WEIGHTS)
        with writing_model(folder, overwrite=True, mark=WEIGHTS) as temporary:
            (temporary / TEXT_ENCODER).mkdir()
            for name in ENCODER_FILES:
                shutil.copyfile(encoder / name, temporary / TEXT_ENCODER / name)
            for name in (CONFIG, VAE_WEIGHTS):
                shutil.copyfile(self.folder / name, temporary / name)
            write_weights(temporary / WEIGHTS, others | dict(weights), {"format": "pt"})


def at_least_float32(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
    """What a layer made, not in half precision: a forward hook."""
    return made.to(torch.promote_types(made.dtype, torch.float32))


def mean_heard(
    words: Float[Tensor, "row token dim"], heard: Bool[Tensor, "row token"]
) -> Float[Tensor, "row dim"]:
    """Mean over the tokens that are no padding."""
    weight = heard[..., None].to(words.dtype)
    return (words * weight).sum(1) / weight.sum(1)


def encoder_folder(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Where configuration and tokenizer of the text encoder are, fetched if need be.

    Raises:
        CheckpointError: one of them is missing.
        ModelNotFoundError: they are not here, and cannot be fetched.
    """
    encoder = folder / TEXT_ENCODER
    if not encoder.is_dir():
        name = str(settings.get("text_encoder_name", "google/flan-t5-large"))
        encoder = fetch(name, None, ENCODER_FILES, False)
    for file in ENCODER_FILES:
        if not (encoder / file).is_file():
            raise CheckpointError(f"{encoder}: text encoder file {file} is missing")
    return encoder


def build_parts(
    library: Any, folder: Path, encoder: Path, sizes: TangoFluxSizes, vae: Any
) -> dict[str, Any]:
    """Every network, with weights that are to be replaced.

    Raises:
        CheckpointError: a configuration does not fit its class.
        ConfigError: this machine cannot hold it.
    """
    from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioNumberConditioner
    from transformers import T5Config, T5EncoderModel

    check_sizes(encoder / "config.json")
    told = read_object(encoder / "config.json", CheckpointError)
    what = f"{encoder / 'config.json'}: not a T5's"
    with foreign_code(what, CheckpointError), skip_random_weights():
        text_encoder: Any = T5EncoderModel(T5Config(**told))
    width, joint = text_encoder.config.d_model, sizes.joint_attention_dim
    of_network = sizes.model_dump(exclude=set(OF_SOUNDS))

    def transformer() -> Any:
        return library.FluxTransformer2DModel(
            **of_network, pooled_projection_dim=width, guidance_embeds=False
        )

    def decoder() -> Any:
        return library.AutoencoderOobleck(**(vae or {}))

    what = f"{folder / CONFIG}: sizes that do not fit"
    with foreign_code(what, CheckpointError), skip_random_weights():
        for make in (transformer, decoder):
            refuse_too_large(make, str(folder / CONFIG))
        return {
            "text_encoder": text_encoder,
            "transformer": transformer(),
            "vae": decoder(),
            "fc": nn.Sequential(nn.Linear(width, joint), nn.ReLU()),
            "seconds": StableAudioNumberConditioner(width, 0, sizes.max_duration),
        }


def load_part(network: nn.Module, state: State, prefix: str, source: Path) -> None:
    """Load what of a file begins with ``prefix``.

    Raises:
        CheckpointError: names the first weight that is missing, unexpected or misshapen.
    """
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if SHARED in own:
        own[SECOND_NAME] = own[SHARED]
    load_strict(network, own, f"{source} ({prefix})")


def padding_tokenizer(path: Path) -> Any:
    """A tokenizer that pads and cuts to ``NUM_TOKENS``.

    Raises:
        CheckpointError: it cannot be read, or knows no padding.
    """
    tokenizer = read_tokenizer(path)
    pad_id = tokenizer.token_to_id("<pad>")
    if pad_id is None:
        raise CheckpointError(f"{path}: no <pad> token")
    tokenizer.enable_truncation(NUM_TOKENS)
    tokenizer.enable_padding(length=NUM_TOKENS, pad_id=pad_id, pad_token="<pad>")
    return tokenizer
