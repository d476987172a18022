"""A whole model so small that it makes a second of (random) sound in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from resonate_audio.audio.mel import MelConfig
from resonate_audio.core.types import TextFeatures
from resonate_audio.model.adapter import write_adapter
from resonate_audio.model.checkpoint import fingerprint_weights, write_weights
from resonate_audio.model.flow_transformer import FlowTransformerConfig
from resonate_audio.model.folder import Networks, build_networks
from resonate_audio.model.minilm import MiniLM, MiniLMConfig
from resonate_audio.model.parts_vocoder import PartsVocoderConfig
from resonate_audio.model.presets import ModelConfig
from resonate_audio.model.text_encoder import TextEncoderConfig
from resonate_audio.model.vae import VAEConfig

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "dog", "rain", "bell", "door", "wind"]
NUM_TOKENS, TEXT_DIM, RATE_HZ, HOP = 9, 16, 8000, 64

TINY = ModelConfig(
    name="tiny",
    text_encoder=TextEncoderConfig(
        kind="minilm", repo_id="nobody/tiny-text", num_tokens=NUM_TOKENS, dim=TEXT_DIM
    ),
    transformer=FlowTransformerConfig(
        latent_channels=6,
        hidden=32,
        num_heads=2,
        num_joint_blocks=2,
        num_single_blocks=1,
        text_dim=TEXT_DIM,
        pooled_dim=TEXT_DIM,
        num_text_tokens=NUM_TOKENS,
        max_frames=256,
    ),
    vae=VAEConfig(num_bands=20, latent_channels=6, hidden=8, down_levels=(0, 1)),
    vocoder=PartsVocoderConfig(
        sample_rate_hz=RATE_HZ, num_bands=20, mel_n_fft=256, hop_samples=HOP, n_fft=128, dim=16,
        mlp_dim=24, dilations=(1,), num_sines=15,
    ),
    mel=MelConfig(
        sample_rate_hz=RATE_HZ, n_fft=256, hop_samples=HOP, num_bands=20, max_hz=4000, log="ln"
    ),
    default_duration_s=0.5,
    max_duration_s=2.0,
    licence="none",
)  # fmt: skip


def random_networks(config: ModelConfig, seed: int) -> Networks:
    """Networks where nothing is left at zero, so that every input matters."""
    torch.manual_seed(seed)
    networks = build_networks(config)
    with torch.no_grad():
        for parameter in networks.transformer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        networks.transformer.latent_mean.normal_()
        networks.transformer.latent_std.uniform_(0.5, 2.0)
        networks.transformer.empty_tokens.normal_()
        networks.transformer.empty_pooled.normal_()
        networks.vae.data_mean.fill_(-6.5)
        networks.vae.data_std.fill_(2.3)
    networks.vae.fold_weight_norm()
    return networks


def random_features(generator: torch.Generator, num_rows: int = 2) -> TextFeatures:
    """What the text encoder of `TINY` might give."""
    sizes = TINY.transformer
    return TextFeatures(
        torch.randn(num_rows, sizes.num_text_tokens, sizes.text_dim, generator=generator),
        torch.randn(num_rows, sizes.pooled_dim, generator=generator),
    )


def write_text_encoder(folder: Path) -> None:
    """A BERT of one block that knows five words."""
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "vocab_size": len(WORDS),
        "hidden_size": TEXT_DIM,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    torch.manual_seed(1)
    network = MiniLM(MiniLMConfig(**settings))
    write_weights(folder / "model.safetensors", network.state_dict(), {})


def write_tiny_adapter(path: Path, base_seed: int = 0, base: str = "tiny", seed: int = 1) -> Path:
    """An adapter of `random_networks(TINY, base_seed)`, strong enough to be heard."""
    transformer = random_networks(TINY, base_seed).transformer
    generator = torch.Generator().manual_seed(seed)
    maps = {}
    for place in ("joint_blocks.0.latents.heads.qkv", "joint_blocks.1.latents.heads.qkv"):
        out, into = transformer.get_parameter(f"{place}.weight").shape
        maps[place] = (
            torch.randn(2, into, generator=generator),
            torch.randn(out, 2, generator=generator),
        )
    write_adapter(path, maps, base, fingerprint_weights([transformer.state_dict()]))
    return path
