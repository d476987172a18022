"""Judges with a few thousand random weights, built from the real classes and saved as folders."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from resonate_audio.rewards.audio_llm.model import AudioLLM

SENTENCES = [
    "Does the audio contain the sound events described by the text: a dog barks while rain falls? "
    "Please answer yes or no.",
    "You are a helpful assistant. system user assistant",
    "Yes yes No no YES NO  Yes  No  yes  no",
    *("Yes", "No", "yes", "no", "YES", "NO"),
] * 20
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN2_SIGNS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
QWEN3_SIGNS = {
    "image_token": "<|image_pad|>",
    "audio_token": "<|audio_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}
DIM = 32
LAYERS = {
    "hidden_size": DIM,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
ENCODER = {
    "num_mel_bins": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "d_model": DIM,
}
VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2}
QWEN2_AUDIO_SECONDS = 2


@functools.cache
def make_tokenizer(qwen3: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level pairs learnt from a few sentences, with the family's control tokens."""
    signs = QWEN3_SIGNS if qwen3 else QWEN2_SIGNS
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[*CHATML, *signs.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=signs,
        model_max_length=32768,
    )


def make_extractor(chunk_length: int) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=16, chunk_length=chunk_length)


def build_qwen2_audio() -> tuple[Any, Any, Any]:
    tokenizer = make_tokenizer()
    encoder = {
        "model_type": "qwen2_audio_encoder",
        "max_source_positions": 50 * QWEN2_AUDIO_SECONDS,
    }
    config = Qwen2AudioConfig(
        audio_config=ENCODER | encoder,
        text_config=LAYERS | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    model = Qwen2AudioForConditionalGeneration(config)
    return model, tokenizer, make_extractor(QWEN2_AUDIO_SECONDS)


def build_qwen2_5_omni() -> tuple[Any, Any, Any]:
    tokenizer = make_tokenizer()
    number = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]}
    config = Qwen2_5OmniThinkerConfig(
        audio_config=ENCODER | {"output_dim": DIM, "n_window": 100},
        vision_config=VISION | {"out_hidden_size": DIM, "fullatt_block_indexes": [0]},
        text_config=LAYERS | {"vocab_size": len(tokenizer), "rope_parameters": rope},
        audio_token_index=number("<|AUDIO|>"),
        image_token_index=number("<|IMAGE|>"),
        video_token_index=number("<|VIDEO|>"),
        audio_start_token_id=number("<|audio_bos|>"),
        audio_end_token_id=number("<|audio_eos|>"),
        vision_start_token_id=number("<|vision_bos|>"),
    )
    return Qwen2_5OmniThinkerForConditionalGeneration(config), tokenizer, make_extractor(300)


def build_qwen3_omni() -> tuple[Any, Any, Any]:
    tokenizer = make_tokenizer(qwen3=True)
    number = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]}
    experts = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
    text = experts | {"head_dim": 8, "vocab_size": len(tokenizer), "rope_parameters": rope}
    chunks = {"n_window": 50, "n_window_infer": 800, "downsample_hidden_size": 8}
    config = Qwen3OmniMoeThinkerConfig(
        audio_config=ENCODER | chunks | {"output_dim": DIM},
        vision_config=VISION
        | {"out_hidden_size": DIM, "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        text_config=LAYERS | text,
        audio_token_id=number("<|audio_pad|>"),
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        audio_start_token_id=number("<|audio_start|>"),
        vision_start_token_id=number("<|vision_start|>"),
    )
    return Qwen3OmniMoeThinkerForConditionalGeneration(config), tokenizer, make_extractor(30)


BUILDERS = {
    "qwen2_audio": build_qwen2_audio,
    "qwen2_5_omni": build_qwen2_5_omni,
    "qwen3_omni": build_qwen3_omni,
}


def make_llm(family: str, question: str = "paper") -> AudioLLM:
    """A judge whose random weights are spread enough for its answers to differ."""
    torch.manual_seed(0)
    model, tokenizer, extractor = BUILDERS[family]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    return AudioLLM(model.eval(), tokenizer, extractor, question)


def write_llm(llm: AudioLLM, folder: Path) -> None:
    """Save a judge as its publishers do."""
    model: Any = llm.model
    model.save_pretrained(folder)
    llm.tokenizer.save_pretrained(folder)
    llm.extractor.save_pretrained(folder)


CLAP_SECONDS = 2


def build_clap(fused: bool = False) -> tuple[Any, Any]:
    """A CLAP that hears two seconds; the fused kind looks at four views of a sound."""
    tokenizer = make_tokenizer()
    config = ClapConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "max_position_embeddings": 100,
            "pad_token_id": tokenizer.pad_token_id,
            "projection_dim": 16,
        },
        audio_config={
            "spec_size": 128,
            "hidden_size": 16,
            "patch_embeds_hidden_size": 8,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "num_hidden_layers": 2,
            "projection_dim": 16,
            "enable_fusion": fused,
            "fusion_type": "aff_2d" if fused else None,
        },
        projection_dim=16,
    )
    extractor = ClapFeatureExtractor(
        max_length_s=CLAP_SECONDS, truncation="fusion" if fused else "rand_trunc"
    )
    torch.manual_seed(0)
    model = ClapModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    return model.eval(), ClapProcessor(extractor, tokenizer)
