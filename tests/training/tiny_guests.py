"""Folders of foreign generators with a few thousand random weights, written by the real classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny_diffusers
import torch
from diffusers import (
    AutoencoderOobleck,
    EDMDPMSolverMultistepScheduler,
    FluxTransformer2DModel,
)
from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioNumberConditioner
from safetensors.torch import save_file
from torch import nn
from transformers import T5Config, T5EncoderModel

DIM, CHANNELS, RATE_HZ = tiny_diffusers.DIM, 3, tiny_diffusers.STEREO_RATE_HZ
VAE = {
    "encoder_hidden_size": 6,
    "downsampling_ratios": [4, 8],
    "decoder_channels": 3,
    "decoder_input_channels": CHANNELS,
    "audio_channels": 2,
    "channel_multiples": [2, 4],
    "sampling_rate": RATE_HZ,
}
SIZES = {
    "num_layers": 1,
    "num_single_layers": 1,
    "in_channels": CHANNELS,
    "attention_head_dim": 128,
    "joint_attention_dim": DIM,
    "num_attention_heads": 1,
    "audio_seq_len": 50,
    "max_duration": 1,
}


def write_stable_audio(folder: Path) -> Path:
    """What ``StableAudioPipeline.save_pretrained`` writes."""
    pipeline = tiny_diffusers.stable_audio()
    pipeline.tokenizer = tiny_diffusers.letters()[1]
    settings = {"prediction_type": "v_prediction", "sigma_data": 1.0}
    pipeline.scheduler = EDMDPMSolverMultistepScheduler(**settings, sigma_min=0.3, sigma_max=500)
    pipeline.text_encoder = t5()
    pipeline.save_pretrained(folder)
    return folder


def write_tangoflux(folder: Path) -> Path:
    """What the hub's repository holds, and the text encoder's two files."""
    torch.manual_seed(0)
    others = {name: SIZES[name] for name in SIZES if name not in ("audio_seq_len", "max_duration")}
    parts: dict[str, nn.Module] = {
        "transformer": FluxTransformer2DModel(**others, pooled_projection_dim=DIM),
        "text_encoder": t5(),
        "fc": nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU()),
        "duration_emebdder": StableAudioNumberConditioner(DIM, 0, SIZES["max_duration"]),
    }
    state = {
        f"{name}.{key}": value.contiguous()
        for name, part in parts.items()
        for key, value in part.state_dict().items()
        if key != "encoder.embed_tokens.weight"
    }
    encoder = folder / "text_encoder"
    encoder.mkdir(parents=True)
    save_file(state, folder / "tangoflux.safetensors")
    vae: Any = AutoencoderOobleck(**VAE)
    save_file(vae.state_dict(), folder / "vae.safetensors")
    (folder / "config.json").write_text(json.dumps(SIZES | {"vae": VAE}))
    (encoder / "config.json").write_text(parts["text_encoder"].config.to_json_string())
    tiny_diffusers.letters()[1].backend_tokenizer.save(str(encoder / "tokenizer.json"))
    return folder


def t5() -> T5EncoderModel:
    words = len(tiny_diffusers.letters()[1])
    sizes = {"d_model": DIM, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 2}
    return T5EncoderModel(T5Config(**sizes, vocab_size=words))


WRITERS = {"stable-audio": write_stable_audio, "tangoflux": write_tangoflux}


def write(kind: str, folder: Path) -> str:
    """Write a guest's folder; gives what a recipe calls it."""
    return f"{kind}:{WRITERS[kind](folder)}"
