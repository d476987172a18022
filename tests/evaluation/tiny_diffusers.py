"""Diffusers pipelines of a few thousand random weights, built from the real classes."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AudioLDM2Pipeline,
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AudioLDMPipeline,
    AutoencoderKL,
    AutoencoderOobleck,
    DDIMScheduler,
    EDMDPMSolverMultistepScheduler,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
    UNet2DConditionModel,
)
from tiny_judges import make_tokenizer
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    ClapTextModelWithProjection,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

BANDS, DIM, RATE_HZ, STEREO_RATE_HZ = 8, 16, 16_000, 8_000
TEXT = {
    "hidden_size": DIM,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "projection_dim": DIM,
}
UNET = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "attention_head_dim": 2,
}


def tokenizer() -> Any:
    """Byte pairs; texts of at most sixteen tokens."""
    made = make_tokenizer()
    made.model_max_length = 16
    return made


def letters() -> tuple[Any, Any]:
    """The two classes of tokenizers that AudioLDM 2 tells apart, of single letters."""
    signs = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    vocab = {sign: number for number, sign in enumerate([*signs, "\u0120", *alphabet])}
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("\u2581", -2.0)]
    pieces += [(letter, -2.0) for letter in alphabet]
    words, pieces_of = RobertaTokenizer(vocab=vocab, merges=[]), T5Tokenizer(vocab=pieces)
    words.model_max_length = pieces_of.model_max_length = 16
    return words, pieces_of


def clap_text() -> ClapTextConfig:
    return ClapTextConfig(
        **TEXT, vocab_size=len(tokenizer()), max_position_embeddings=32, pad_token_id=1
    )


def vocoder() -> SpeechT5HifiGan:
    return SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=BANDS,
            sampling_rate=RATE_HZ,
            upsample_initial_channel=8,
            upsample_rates=[4, 4, 4],
            upsample_kernel_sizes=[8, 8, 8],
            resblock_kernel_sizes=[3],
            resblock_dilation_sizes=[[1, 3]],
            normalize_before=False,
            initializer_range=0.3,
        )
    )


def mel_vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        latent_channels=4,
        norm_num_groups=4,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )


def audioldm() -> AudioLDMPipeline:
    """Mel bands from a UNet that is told the text's embedding as a class."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        **UNET,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(8, 16),
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=DIM,
        class_embeddings_concat=True,
    )
    return AudioLDMPipeline(
        vae=mel_vae(),
        text_encoder=ClapTextModelWithProjection(clap_text()),
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False),
        vocoder=vocoder(),
    )


def audioldm2() -> AudioLDM2Pipeline:
    """Two text encoders, and a language model that goes on where they end."""
    torch.manual_seed(0)
    unet = AudioLDM2UNet2DConditionModel(
        **UNET,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=([None, DIM, DIM], [None, DIM, DIM]),
    )
    audio = {
        "hidden_size": 16,
        "patch_embeds_hidden_size": 8,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "num_attention_heads": [1, 2],
        "depths": [1, 1],
        "num_hidden_layers": 2,
        "num_mel_bins": 64,
        "spec_size": 256,
        "window_size": 8,
        "projection_dim": DIM,
    }
    clap = ClapConfig(text_config=clap_text().to_dict(), audio_config=audio, projection_dim=DIM)
    words, pieces = letters()
    language = GPT2Config(
        n_embd=DIM, n_head=2, n_layer=1, n_positions=99, vocab_size=9, bos_token_id=1,
        eos_token_id=2, max_new_tokens=4,
    )  # fmt: skip
    return AudioLDM2Pipeline(
        vae=mel_vae(),
        text_encoder=ClapModel(clap),
        text_encoder_2=t5(),
        projection_model=AudioLDM2ProjectionModel(
            text_encoder_dim=DIM, text_encoder_1_dim=DIM, langauge_model_dim=DIM
        ),
        language_model=GPT2LMHeadModel(language),
        tokenizer=words,
        tokenizer_2=pieces,
        feature_extractor=ClapFeatureExtractor(feature_size=64, sampling_rate=RATE_HZ),
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False),
        vocoder=vocoder(),
    )


def t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            d_model=DIM, d_ff=24, d_kv=8, num_heads=2, num_layers=1, vocab_size=len(tokenizer())
        )
    )


def stable_audio() -> StableAudioPipeline:
    """Stereo samples from a transformer that is told start and end."""
    torch.manual_seed(0)
    return StableAudioPipeline(
        vae=AutoencoderOobleck(
            encoder_hidden_size=6,
            downsampling_ratios=[4, 8],
            decoder_channels=3,
            decoder_input_channels=3,
            audio_channels=2,
            channel_multiples=[2, 4],
            sampling_rate=STEREO_RATE_HZ,
        ),
        text_encoder=t5(),
        projection_model=StableAudioProjectionModel(
            text_encoder_dim=DIM, conditioning_dim=DIM, min_value=0, max_value=32
        ),
        tokenizer=tokenizer(),
        transformer=StableAudioDiTModel(
            sample_size=32,
            in_channels=3,
            num_layers=1,
            attention_head_dim=4,
            num_attention_heads=4,
            num_key_value_attention_heads=2,
            out_channels=3,
            cross_attention_dim=DIM,
            time_proj_dim=8,
            global_states_input_dim=2 * DIM,
            cross_attention_input_dim=DIM,
        ),
        scheduler=EDMDPMSolverMultistepScheduler(solver_order=2),
    )


PIPELINES = {"audioldm": audioldm, "audioldm2": audioldm2, "stable_audio": stable_audio}


def make(name: str) -> Any:
    """A pipeline as loading one gives it: a new one would drop out weights by chance."""
    pipeline = PIPELINES[name]()
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipeline
