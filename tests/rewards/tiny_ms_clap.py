"""An MS-CLAP of a few thousand random weights, under the published key names."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from resonate_audio.audio.mel import MelConfig, mel_basis
from resonate_audio.model.checkpoint import State
from resonate_audio.rewards.clap.microsoft import MSClapModel
from resonate_audio.rewards.clap.microsoft_network import build_ms_clap

BINS, BANDS, WIDTH, TEXT_WIDTH, DIM, WINDOW = 513, 64, 8, 64, 16, 8
HEADS = (2, 4)
HTSAT, GPT2 = "audio_encoder.base.htsat.", "caption_encoder.base."


def make_state(seed: int = 0) -> State:
    """Two stages of one shifted pair each; everything that the published file holds."""
    torch.manual_seed(seed)
    state = front_end() | patch_embedding()
    for stage in range(2):
        state |= audio_stage(f"{HTSAT}layers.{stage}.", WIDTH * 2**stage, HEADS[stage])
    state |= downsample(f"{HTSAT}layers.0.downsample.", WIDTH)
    state |= layer_norm(f"{HTSAT}norm", 2 * WIDTH)
    state |= linear(f"{HTSAT}head", 5, 5) | {
        f"{HTSAT}tscam_conv.weight": torch.randn(5, 2 * WIDTH, 2, 3),
        f"{HTSAT}tscam_conv.bias": torch.randn(5),
    }
    state |= text_tower(len(make_tokenizer()))
    state |= projection("audio_encoder.projection.", 2 * WIDTH)
    state |= projection("caption_encoder.projection.", TEXT_WIDTH)
    return state | {"logit_scale": torch.tensor(3.0)}


def front_end() -> State:
    """Fourier kernels under a Hann window and mel filters, as weights."""
    size = 2 * (BINS - 1)
    angles = 2 * math.pi / size * (torch.arange(BINS)[:, None] * torch.arange(size) % size).double()
    window = torch.hann_window(size, dtype=torch.float64)
    config = MelConfig(
        sample_rate_hz=44_100,
        n_fft=size,
        hop_samples=320,
        num_bands=BANDS,
        min_hz=50,
        max_hz=8000,
        log="log10",
    )
    return {
        f"{HTSAT}spectrogram_extractor.stft.conv_real.weight": (angles.cos() * window)
        .float()
        .unsqueeze(1),
        f"{HTSAT}spectrogram_extractor.stft.conv_imag.weight": (-angles.sin() * window)
        .float()
        .unsqueeze(1),
        f"{HTSAT}logmel_extractor.melW": mel_basis(config).T.float().contiguous(),
        f"{HTSAT}bn0.weight": torch.ones(BANDS),
        f"{HTSAT}bn0.bias": torch.zeros(BANDS),
        f"{HTSAT}bn0.running_mean": torch.full((BANDS,), -30.0),
        f"{HTSAT}bn0.running_var": torch.full((BANDS,), 300.0),
        f"{HTSAT}bn0.num_batches_tracked": torch.tensor(7),
    }


def patch_embedding() -> State:
    return {
        f"{HTSAT}patch_embed.proj.weight": torch.randn(WIDTH, 1, 4, 4),
        f"{HTSAT}patch_embed.proj.bias": torch.randn(WIDTH),
    } | layer_norm(f"{HTSAT}patch_embed.norm", WIDTH)


def audio_stage(prefix: str, width: int, heads: int) -> State:
    state: State = {}
    side = torch.arange(WINDOW)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(side, side, indexing="ij"))
    apart = [axis[:, None] - axis[None] + WINDOW - 1 for axis in (rows, columns)]
    for number in range(2):
        block = f"{prefix}blocks.{number}."
        state |= layer_norm(f"{block}norm1", width) | layer_norm(f"{block}norm2", width)
        state |= linear(f"{block}attn.qkv", 3 * width, width)
        state |= linear(f"{block}attn.proj", width, width)
        state |= linear(f"{block}mlp.fc1", 4 * width, width)
        state |= linear(f"{block}mlp.fc2", width, 4 * width)
        state[f"{block}attn.relative_position_bias_table"] = torch.randn(225, heads)
        state[f"{block}attn.relative_position_index"] = apart[0] * (2 * WINDOW - 1) + apart[1]
    return state | {f"{prefix}blocks.1.attn_mask": torch.zeros(4, 64, 64)}


def downsample(prefix: str, width: int) -> State:
    reduction = torch.randn(2 * width, 4 * width) / 4
    return {f"{prefix}reduction.weight": reduction} | layer_norm(f"{prefix}norm", 4 * width)


def text_tower(vocabulary: int) -> State:
    width, layer = TEXT_WIDTH, f"{GPT2}h.0."
    state = {
        f"{GPT2}wte.weight": torch.randn(vocabulary, width),
        f"{GPT2}wpe.weight": torch.randn(100, width) / 2,
        f"{layer}attn.bias": torch.ones(1, 1, 100, 100).tril().bool(),
        f"{layer}attn.masked_bias": torch.tensor(-1e4),
    }
    for name, outer in (("attn.c_attn", 3), ("attn.c_proj", 1), ("mlp.c_fc", 4)):
        state |= linear(f"{layer}{name}", width, outer * width, bias=outer * width)
    state |= linear(f"{layer}mlp.c_proj", 4 * width, width, bias=width)
    for name in (f"{layer}ln_1", f"{layer}ln_2", f"{GPT2}ln_f"):
        state |= layer_norm(name, width)
    return state


def linear(name: str, rows: int, columns: int, bias: int | None = None) -> State:
    weight = torch.randn(rows, columns) / math.sqrt(columns)
    return {f"{name}.weight": weight, f"{name}.bias": torch.randn(rows if bias is None else bias)}


def layer_norm(name: str, width: int) -> State:
    return {
        f"{name}.weight": 1 + torch.randn(width) / 10,
        f"{name}.bias": torch.randn(width) / 10,
    }


def projection(prefix: str, width: int) -> State:
    return {
        f"{prefix}linear1.weight": torch.randn(DIM, width),
        f"{prefix}linear2.weight": torch.randn(DIM, DIM) / 4,
    } | layer_norm(f"{prefix}layer_norm", DIM)


@functools.cache
def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level pairs as GPT-2's, "!" being number 0 and the end mark the last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a dog barks while rain falls", "a car horn"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def write_published(folder: Path, seed: int = 0) -> Path:
    """The file as it is published, the tokenizer beside it."""
    path = folder / "CLAP_weights_2023.pth"
    torch.save({"model": make_state(seed)}, path)
    tokenizer: Any = make_tokenizer()
    tokenizer.save_pretrained(folder)
    return path


@functools.cache
def make_model() -> MSClapModel:
    network = build_ms_clap(make_state(), "tiny")
    return MSClapModel(network, make_tokenizer(), "tiny", batch_size=3)
