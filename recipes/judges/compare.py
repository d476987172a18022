#!/usr/bin/env python3
"""Compare a served judge with the same weights in this process.

    recipes/judges/compare.py compare FOLDER SPEC     FOLDER or hub id, and as open_remote takes it
    recipes/judges/compare.py write FOLDER            a tiny Qwen2-Audio with random weights
    recipes/judges/compare.py ready URL               whether a server is up

The first is the calibration to run once for every new server: ten sounds, the largest difference.
"""

from __future__ import annotations

import argparse
import asyncio
import urllib.error
import urllib.request
from pathlib import Path

import torch
from torch import Tensor

from resonate_audio.core.errors import ResonateError, RewardError
from resonate_audio.core.types import Waveform
from resonate_audio.rewards.audio_llm.aqascore import AQAReward
from resonate_audio.rewards.desk import score_now
from resonate_audio.rewards.remote.config import RemoteConfig, parse_remote_spec
from resonate_audio.rewards.remote.judge import RemoteAQAReward

RATE_HZ = 44_100
NUM_SOUNDS = 10
SIGNS = {
    "audio_token": "<|AUDIO|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
CAPTIONS = ("a dog barks", "rain falls on a tin roof", "a siren", "people talk", "a low hum")
TEMPLATE = (
    "{% set count = namespace(value=0) %}{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'audio' %}"
    "{% set count.value = count.value + 1 %}"
    "Audio {{ count.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A conversation as Qwen2-Audio lays it out."""


def main() -> None:
    """Do what the first word says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("compare", "write", "ready"))
    parser.add_argument("place")
    parser.add_argument("spec", nargs="?", default="")
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    if asked.task == "write":
        write_tiny_judge(Path(asked.place))
    elif asked.task == "ready":
        raise SystemExit(0 if is_up(asked.place) else 1)
    else:
        try:
            compare(asked.place, asked.spec, asked.tolerance, asked.device)
        except ResonateError as error:
            raise SystemExit(f"error: {error}") from error


def compare(source: str, spec: str, tolerance: float, device: str) -> None:
    """Print the scores side by side, by id and by the top of the list."""
    audio = make_sounds()
    captions = [CAPTIONS[row % len(CAPTIONS)] for row in range(NUM_SOUNDS)]
    here = score_now(AQAReward.from_pretrained(source, device), audio, captions)
    config = parse_remote_spec(spec)
    served = RemoteAQAReward(config)
    there = score_now(served, audio, captions)
    for row in range(NUM_SOUNDS):
        numbers = f"{here.total[row]:.6f} {there.total[row]:.6f}"
        print(f"{captions[row]:28s} {numbers} mass {there.parts['answer_mass'][row]:.4f}")
    largest = asyncio.run(served.calibrate(here.total, audio, captions, tolerance))
    stats = served.stats.transport
    print(
        f"largest difference {largest:.2e}, widest bounds {there.parts['bound_width'].max():.2e}, "
        f"{stats.num_requests} requests, {stats.mean_latency_s * 1e3:.0f} ms each"
    )
    print(by_the_top_of_the_list(config, here.total, audio, captions))


def by_the_top_of_the_list(
    config: RemoteConfig, scores: Tensor, audio: Waveform, captions: list[str]
) -> str:
    """What the judge is worth when it cannot be asked for tokens by id."""
    by_text = config.model_copy(update={"discover_ids": False, "max_bound_width": 1.0})
    try:
        bounded = score_now(RemoteAQAReward(by_text), audio, captions)
    except RewardError as error:
        return f"by the top of the list alone: {error}"
    width = bounded.parts["bound_width"]
    inside = (bounded.total - scores).abs() <= width / 2 + 1e-6
    return (
        f"by the top of the list alone: {int(inside.sum())} of {NUM_SOUNDS} scores inside bounds "
        f"of width {width.min():.3f} to {width.max():.3f}"
    )


def make_sounds() -> Waveform:
    """Noise and a tone in changing shares, so that the answers differ."""
    generator = torch.Generator().manual_seed(0)
    time_s = torch.arange(3 * RATE_HZ) / RATE_HZ
    noise = torch.randn(NUM_SOUNDS, len(time_s), generator=generator)
    pitch_hz = torch.logspace(2, 3.7, NUM_SOUNDS)[:, None]
    share = torch.linspace(0, 1, NUM_SOUNDS)[:, None]
    tones = torch.sin(2 * torch.pi * pitch_hz * time_s)
    return Waveform(0.1 * (share * tones + (1 - share) * noise), RATE_HZ)


def is_up(url: str) -> bool:
    """Whether ``/health`` answers."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def write_tiny_judge(folder: Path) -> None:
    """Save a Qwen2-Audio small enough for any machine; its weights are spread so scores differ."""
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    tokenizer = make_tokenizer()
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 128,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 256,
            "d_model": 128,
            "max_source_positions": 1500,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
            "pad_token_id": tokenizer.pad_token_id,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(4.0)
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=30)
    model.save_pretrained(folder)
    Qwen2AudioProcessor(
        feature_extractor=extractor, tokenizer=tokenizer, chat_template=TEMPLATE
    ).save_pretrained(folder)
    extractor.save_pretrained(folder)


def make_tokenizer() -> object:
    """Byte pairs learnt from the question itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", *SIGNS.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [
        "Yes yes No no YES NO",
        "Please answer yes or no.",
        "Yes",
        "No",
        "yes",
        "no",
        *CAPTIONS,
    ]
    tokenizer.train_from_iterator(texts * 50, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=SIGNS,
        model_max_length=32768,
    )


if __name__ == "__main__":
    main()
