"""Files of the names, forms and tensor names of the published ones, random and tiny."""

from __future__ import annotations

import io
import json
from functools import cache
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

from resonate_audio.model.bigvgan import BigVGAN, BigVGANConfig
from resonate_audio.model.flow_transformer import FlowTransformer, FlowTransformerConfig
from resonate_audio.model.official.bigvgan import our_bigvgan_name
from resonate_audio.model.official.flow import to_official
from resonate_audio.model.official.vae import our_vae_name
from resonate_audio.model.vae import MelVAE, VAEConfig

TEXT_DIM, POOLED_DIM, NUM_TOKENS = 16, 12, 77
WORDS = ["<pad>", "</s>", "<unk>", "a", "dog", "barks", "rain"]
FLOW = FlowTransformerConfig(
    latent_channels=4,
    hidden=32,
    num_heads=2,
    num_joint_blocks=1,
    num_single_blocks=1,
    text_dim=TEXT_DIM,
    pooled_dim=TEXT_DIM,
    num_text_tokens=NUM_TOKENS,
)
VAE = VAEConfig(num_bands=128, latent_channels=4, hidden=8)
MEAN_FLOW = FLOW.model_copy(update={"pooled_dim": POOLED_DIM, "mean_velocity": True})
PLAIN_FLOW = FLOW.model_copy(update={"pooled_dim": POOLED_DIM})
VAE_16K = VAE.model_copy(update={"num_bands": 80})
BIGVGAN = BigVGANConfig(
    version=2,
    sample_rate_hz=44_100,
    num_bands=128,
    initial_channels=64,
    upsample_rates=(8, 4, 2, 2, 2, 2),
    upsample_kernels=(16, 8, 4, 4, 4, 4),
)

BIGVGAN_16K = BigVGANConfig(
    version=1,
    sample_rate_hz=16_000,
    num_bands=80,
    initial_channels=64,
    upsample_rates=(4, 4, 2, 2, 2, 2),
    upsample_kernels=(8, 8, 4, 4, 4, 4),
)


def official_vae_names() -> list[str]:
    """Of every entry that a VAE of three levels may have."""
    names = ["data_mean", "data_std"]
    for side, num_blocks, level in (("encoder", 2, "down"), ("decoder", 3, "up")):
        names += [f"{side}.learnable_gain", f"{side}.conv_in.weight", f"{side}.conv_out.weight"]
        names += [f"{side}.mid.block_{i}.conv{j}.weight" for i in (1, 2) for j in (1, 2)]
        names += [f"{side}.mid.attn_1.{layer}.weight" for layer in ("qkv", "proj_out")]
        names += [
            f"{side}.{level}.{i}.block.{j}.{layer}.weight"
            for i in range(3)
            for j in range(num_blocks)
            for layer in ("conv1", "conv2", "nin_shortcut")
        ]
    names += [f"encoder.down.0.downsample.conv{i}.weight" for i in (1, 2)]
    return [*names, "decoder.up.1.upsample.conv.weight"]


def official_bigvgan_names() -> list[str]:
    """Of every entry that a BigVGAN of six stages may have."""
    names = [
        f"{layer}.{kind}" for layer in ("conv_pre", "conv_post") for kind in ("weight", "bias")
    ]
    names += [f"activation_post.act.{kind}" for kind in ("alpha", "beta")]
    names += [f"ups.{i}.0.{kind}" for i in range(6) for kind in ("weight", "bias")]
    for block in range(18):
        for step in range(3):
            for conv in ("convs1", "convs2"):
                names += [f"resblocks.{block}.{conv}.{step}.{kind}" for kind in ("weight", "bias")]
        for i in range(6):
            names += [f"resblocks.{block}.activations.{i}.act.{kind}" for kind in ("alpha", "beta")]
    return names


def published(network: nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
    """The network's weights under their published names; what a level lacks is left out."""
    state = network.state_dict()
    found = {theirs: state[ours] for theirs, ours in names.items() if ours in state}
    assert set(state) - {names[theirs] for theirs in found} <= {"folded"}
    return found


def flow_state(config: FlowTransformerConfig) -> dict[str, Tensor]:
    """A published flow transformer in which every input matters."""
    torch.manual_seed(0)
    flow = FlowTransformer(config)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return to_official(flow.state_dict())


def vae_state(config: VAEConfig) -> dict[str, Tensor]:
    """A published mel VAE, its weights as they were trained."""
    torch.manual_seed(1)
    names = {name: our_vae_name(name, config) for name in official_vae_names()}
    return published(MelVAE(config), names)


def bigvgan_state(config: BigVGANConfig) -> dict[str, Tensor]:
    """A published BigVGAN with weight norm in the older spelling."""
    torch.manual_seed(2)
    names = {name: our_bigvgan_name(name, config) for name in official_bigvgan_names()}
    state: dict[str, Tensor] = {}
    for name, value in published(BigVGAN(config), names).items():
        if value.dim() == 3 and name.endswith(".weight"):
            norm = torch.linalg.vector_norm(value, dim=(1, 2), keepdim=True)
            state |= {f"{name}_g": norm, f"{name}_v": value}
        else:
            state[name] = value
    return state


def t5_files() -> dict[str, bytes]:
    """A whole T5 that knows a few words: its decoder is there to be left out."""
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    config = {
        "vocab_size": len(WORDS), "d_model": TEXT_DIM, "d_kv": 8, "d_ff": 24, "num_layers": 1,
        "num_heads": 2, "feed_forward_proj": "gated-gelu", "model_type": "t5",
    }  # fmt: skip
    torch.manual_seed(3)
    block, inner = "encoder.block.0.layer", 2 * 8
    shapes = {
        "shared.weight": (len(WORDS), TEXT_DIM),
        f"{block}.0.SelfAttention.relative_attention_bias.weight": (32, 2),
        f"{block}.0.SelfAttention.o.weight": (TEXT_DIM, inner),
        f"{block}.0.layer_norm.weight": (TEXT_DIM,),
        f"{block}.1.DenseReluDense.wi_0.weight": (24, TEXT_DIM),
        f"{block}.1.DenseReluDense.wi_1.weight": (24, TEXT_DIM),
        f"{block}.1.DenseReluDense.wo.weight": (TEXT_DIM, 24),
        f"{block}.1.layer_norm.weight": (TEXT_DIM,),
        "encoder.final_layer_norm.weight": (TEXT_DIM,),
        "decoder.final_layer_norm.weight": (TEXT_DIM,),
        "lm_head.weight": (len(WORDS), TEXT_DIM),
    }
    shapes |= {f"{block}.0.SelfAttention.{part}.weight": (inner, TEXT_DIM) for part in "qkv"}
    state = {name: 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": tokenizer.to_str().encode(),
        "model.safetensors": save(state),
    }


ROBERTA_WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "dog", "barks", "rain"]


def roberta_tokenizer() -> bytes:
    """RoBERTa's tokens, few."""
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(ROBERTA_WORDS)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer.to_str().encode()


def clap_content() -> dict[str, Any]:
    """LAION's checkpoint: both halves of the network, and what its trainer kept beside them."""
    torch.manual_seed(4)
    width, layer = 16, "text_branch.encoder.layer.0"
    shapes = {
        "text_branch.embeddings.word_embeddings.weight": (len(ROBERTA_WORDS), width),
        "text_branch.embeddings.position_embeddings.weight": (NUM_TOKENS + 3, width),
        "text_branch.embeddings.token_type_embeddings.weight": (1, width),
        f"{layer}.intermediate.dense.weight": (24, width),
        f"{layer}.intermediate.dense.bias": (24,),
        f"{layer}.output.dense.weight": (width, 24),
        f"{layer}.output.dense.bias": (width,),
        "text_projection.0.weight": (POOLED_DIM, width),
        "text_projection.0.bias": (POOLED_DIM,),
        "text_projection.2.weight": (POOLED_DIM, POOLED_DIM),
        "text_projection.2.bias": (POOLED_DIM,),
        "audio_branch.bn0.weight": (64,),
        "logit_scale_a": (),
    }
    square = [f"{layer}.attention.self.{name}" for name in ("query", "key", "value")]
    for name in (*square, f"{layer}.attention.output.dense", "text_branch.pooler.dense"):
        shapes |= {f"{name}.weight": (width, width), f"{name}.bias": (width,)}
    norms = ("attention.output.LayerNorm", "output.LayerNorm")
    for name in ("text_branch.embeddings.LayerNorm", *(f"{layer}.{norm}" for norm in norms)):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    state = {f"module.{name}": 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    state["module.text_branch.embeddings.position_ids"] = torch.arange(NUM_TOKENS + 3)[None]
    moments = {"step": 3, "exp_avg": torch.ones(2)}
    optimizer = {"state": {0: moments}, "param_groups": [{"lr": np.float64(1e-4)}]}
    return {"epoch": 15, "name": "tiny", "state_dict": state, "optimizer": optimizer}


def saved(content: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@cache
def repositories() -> dict[str, dict[str, bytes]]:
    """Every file that the names of the table are made of, by repository."""
    flow = flow_state(FLOW)
    half = {name: value.bfloat16() for name, value in flow.items()}
    return {
        "AndreasXi/Resonate": {
            "Resonate_GRPO.pth": saved(half),
            "Resonate_PT.pth": saved(flow),
            "v1-44.pth": saved(vae_state(VAE)),
        },
        "nvidia/bigvgan_v2_44khz_128band_512x": {
            "bigvgan_generator.pt": saved({"generator": bigvgan_state(BIGVGAN)}),
        },
        "google/flan-t5-large": t5_files(),
        "AndreasXi/MeanAudio": {
            "meanaudio_s_full.pth": saved(flow_state(MEAN_FLOW)),
            "meanaudio_s_ac.pth": saved(flow_state(MEAN_FLOW)),
            "meanaudio_l_full.pth": saved(flow_state(MEAN_FLOW)),
            "fluxaudio_s_full.pth": saved(flow_state(PLAIN_FLOW)),
            "v1-16.pth": saved(vae_state(VAE_16K)),
            "best_netG.pt": saved({"generator": bigvgan_state(BIGVGAN_16K)}),
            "music_speech_audioset_epoch_15_esc_89.98.pt": saved(clap_content()),
        },
        "FacebookAI/roberta-base": {"tokenizer.json": roberta_tokenizer()},
    }
