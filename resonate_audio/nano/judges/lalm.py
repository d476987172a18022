"""nano-lalm: an audio LLM of a few million weights, made from nothing, in a published architecture.

It is a ``Qwen3OmniMoeThinkerForConditionalGeneration`` with a tiny configuration, so whatever
scores with Qwen3-Omni scores with it: same class, same question, same log-odds of yes and no. Its
layers are dense, where the published model's have experts. What is its own is a WordPiece
vocabulary of the words that captions use, whose vectors start as MiniLM's, and 64 bands.

A first try was a tiny Qwen2-Audio. Its encoder convolves along time only; this one convolves along
frequency too, which suits a few thousand recordings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.core.config import NetworkConfig
from resonate_audio.core.files import make_folder
from resonate_audio.model.checkpoint import read_tokenizer, read_weights
from resonate_audio.model.text_encoder import dequantize
from resonate_audio.nano.judges.questions import Phrase
from resonate_audio.rewards.audio_llm.model import AudioLLM
from resonate_audio.rewards.audio_llm.question import CAPTION, WORDINGS

CONTROL = {
    "audio_token": "<|audio_pad|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
PAD, TURN_BEGIN, TURN_END, UNKNOWN = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "[UNK]"
FRAME_TEXT = ("user assistant yes no",)
VECTOR_SPREAD = 0.05
"""Root mean square of a first vector's values."""
ROPE_THETA = 1e8
"""Turns most of a head so slowly that words and sounds can be compared from afar."""
COMPARING_LAYER = 2
"""Layer of the language model in which sounds are to look for the words that name them."""
NO_VISION = {
    "depth": 1,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_heads": 2,
    "deepstack_visual_indexes": [0],
    "num_position_embeddings": 4,
}
"""The architecture has a part that sees; here it is as small as can be, and never used."""
FIRST_WORD = 1996
"""MiniLM's ids from here on are words, the most frequent first."""


class LalmConfig(NetworkConfig):
    """Sizes of nano-lalm."""

    num_bands: int = Field(64, ge=8)
    n_fft: int = Field(640, ge=160)
    window_s: int = Field(30, ge=1)
    """What the mel front end calls a chunk; nothing is cut off."""
    audio_channels: int = Field(64, ge=1)
    """Of the three convolutions, each of which halves time and frequency."""
    audio_dim: int = Field(192, ge=8)
    audio_layers: int = Field(3, ge=1)
    audio_heads: int = Field(4, ge=1)
    audio_mlp: int = Field(576, ge=8)
    text_dim: int = Field(128, ge=8)
    text_layers: int = Field(6, ge=COMPARING_LAYER + 3)
    text_heads: int = Field(4, ge=2)
    head_dim: int = Field(64, ge=8, multiple_of=8)
    text_mlp: int = Field(384, ge=8)

    @property
    def slow_rows(self) -> list[int]:
        """Rows of a head whose turning with distance is slow enough to compare words and sounds."""
        half, first = self.head_dim // 2, 3 * self.head_dim // 16
        return [*range(first, half), *range(half + first, self.head_dim)]

    num_common_words: int = Field(2000, ge=0)
    """Words of the language taken into the vocabulary beside those of the corpus."""


def build_lalm(
    config: LalmConfig, captions: Iterable[str], minilm: Path, seed: int = 0
) -> AudioLLM:
    """A fresh model with its tokenizer and mel front end.

    Args:
        config: sizes.
        captions: texts whose words the vocabulary must hold.
        minilm: folder of the text encoder that words and their first vectors come from.
        seed: of the weights.
    """
    import transformers

    tokenizer, vectors = build_tokenizer(config, captions, minilm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = transformers.Qwen3OmniMoeThinkerForConditionalGeneration(
            architecture(config, len(tokenizer), tokenizer)
        )
        spread_weights(model.model)
    embedding = model.get_input_embeddings().weight
    with torch.no_grad():
        embedding[: len(vectors)] = vectors
    extractor = transformers.WhisperFeatureExtractor(
        feature_size=config.num_bands,
        sampling_rate=16_000,
        hop_length=160,
        chunk_length=config.window_s,
        n_fft=config.n_fft,
        return_attention_mask=True,
    )
    return AudioLLM(model, tokenizer, extractor, "paper")


@torch.no_grad()
def spread_weights(model: nn.Module) -> None:
    """Draw first weights that keep the power of what goes through them.

    The published models start from a deviation of 0.02 whatever the width. In layers as narrow as
    these, sounds fade before they reach the language model: after 200 steps of learning to hear,
    the cross-entropy of classes was 4.6 with it; with this it was 3.9 after 175.
    """
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        gain = 2.0 if isinstance(module, nn.Conv2d) else 1.0
        if name.endswith(("o_proj", "down_proj", "out_proj", "fc2")):
            gain = 0.1  # what is added to a residual stream
        nn.init.normal_(module.weight, std=(gain / module.weight[0].numel()) ** 0.5)


def architecture(config: LalmConfig, num_words: int, tokenizer: Any) -> Any:
    """The transformers configuration of these sizes."""
    import transformers

    number, thirds = tokenizer.convert_tokens_to_ids, config.head_dim // 2 // 3
    rope = {
        "rope_type": "default",
        "rope_theta": ROPE_THETA,
        "mrope_section": [config.head_dim // 2 - 2 * thirds, thirds, thirds],
        "mrope_interleaved": True,
    }
    return transformers.Qwen3OmniMoeThinkerConfig(
        audio_config={
            "num_mel_bins": config.num_bands,
            "d_model": config.audio_dim,
            "encoder_layers": config.audio_layers,
            "encoder_attention_heads": config.audio_heads,
            "encoder_ffn_dim": config.audio_mlp,
            "downsample_hidden_size": config.audio_channels,
            "output_dim": config.text_dim,
            "n_window": 50,
            "n_window_infer": 800,
        },
        vision_config=NO_VISION | {"out_hidden_size": config.text_dim},
        text_config={
            "vocab_size": num_words,
            "hidden_size": config.text_dim,
            "intermediate_size": config.text_mlp,
            "num_hidden_layers": config.text_layers,
            "num_attention_heads": config.text_heads,
            "num_key_value_heads": config.text_heads,
            "head_dim": config.head_dim,
            "mlp_only_layers": list(range(config.text_layers)),
            "max_position_embeddings": 2048,
            "rope_parameters": rope,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": False,
        },
        audio_token_id=number(CONTROL["audio_token"]),
        image_token_id=number(CONTROL["image_token"]),
        video_token_id=number(CONTROL["video_token"]),
        audio_start_token_id=number(CONTROL["audio_bos_token"]),
        vision_start_token_id=number(CONTROL["vision_bos_token"]),
        tie_word_embeddings=False,
    )


def build_tokenizer(
    config: LalmConfig, captions: Iterable[str], minilm: Path
) -> tuple[Any, Float[Tensor, "word dim"]]:
    """A WordPiece tokenizer over part of MiniLM's vocabulary, and a first vector for each word."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    whole = read_tokenizer(minilm / "tokenizer.json")
    whole.no_padding()
    whole.no_truncation()
    ids = chosen_words(whole, [*captions, *WORDINGS.values(), *FRAME_TEXT], config.num_common_words)
    vocabulary = whole.get_vocab()
    by_id = {index: word for word, index in vocabulary.items()}
    words = [UNKNOWN, *(by_id[index] for index in ids)]
    small = Tokenizer(
        models.WordPiece(vocab={w: i for i, w in enumerate(words)}, unk_token=UNKNOWN)
    )
    small.normalizer = normalizers.BertNormalizer(lowercase=True)
    small.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    small.decoder = decoders.WordPiece()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=small,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=TURN_END,
        extra_special_tokens=CONTROL | {"turn_token": TURN_BEGIN},
        padding_side="left",
        model_max_length=512,
    )
    vectors = first_vectors(minilm, [vocabulary[UNKNOWN], *ids], config.text_dim)
    return tokenizer, vectors


def chosen_words(tokenizer: Any, texts: Sequence[str], num_common: int) -> list[int]:
    """Ids of single characters, of the most frequent words, and of every word of the texts."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    used = {
        index
        for coded in tokenizer.encode_batch(texts, add_special_tokens=False)
        for index in coded.ids
    }
    letters = {
        index
        for word, index in vocabulary.items()
        if len(word.removeprefix("##")) == 1 and word.isascii()
    }
    common = set(range(FIRST_WORD, FIRST_WORD + num_common))
    return sorted((used | letters | common) - {vocabulary[UNKNOWN]})


def first_vectors(minilm: Path, ids: Sequence[int], dim: int) -> Float[Tensor, "word dim"]:
    """MiniLM's word vectors on the directions in which they differ most, made small."""
    state = dequantize(read_weights(minilm / "model.safetensors"))
    vectors = state["embeddings.word_embeddings.weight"].float()[list(ids)]
    centred = vectors - vectors.mean(dim=0)
    _, directions = torch.linalg.eigh(centred.T @ centred)
    kept = centred @ directions.flip(1)[:, :dim]
    scaled: Tensor = kept / kept.norm(dim=1).mean() * (dim**0.5 * VECTOR_SPREAD)
    return scaled


def save_lalm(llm: AudioLLM, folder: Path) -> None:
    """Write a plain transformers folder, weights in half precision."""
    from transformers.utils import logging

    make_folder(folder)
    model: Any = llm.model
    dtype, bars = next(model.parameters()).dtype, logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model.half().save_pretrained(folder)
    model.to(dtype)
    if bars:
        logging.enable_progress_bar()
    llm.tokenizer.save_pretrained(folder)
    llm.extractor.save_pretrained(folder)


@dataclass(frozen=True)
class Coded:
    """Questions as the model reads them, padded on the left, with sounds at the same places."""

    ids: Int64[Tensor, "row token"]
    mask: Int64[Tensor, "row token"]
    is_audio: Bool[Tensor, "row token"]
    spans: list[list[tuple[int, int]]]
    """First character of each token in the question and the one after its last."""
    begin: int
    """Characters before the text that is asked about."""

    @property
    def audio(self) -> slice:
        """Where the sound is, in every row."""
        places = self.is_audio[0].nonzero()
        return slice(int(places[0]), int(places[-1]) + 1)

    def phrase_tokens(
        self, phrases: Sequence[Sequence[Phrase]], most: int = 3
    ) -> Bool[Tensor, "row phrase token"]:
        """Which tokens belong to each of at most ``most`` phrases of each row's text."""
        chosen = torch.zeros(len(phrases), most, self.ids.shape[1], dtype=torch.bool)
        for row, named in enumerate(phrases):
            for column, phrase in enumerate(named):
                chosen[row, column, tokens_within(self.spans[row], phrase, self.begin)] = True
        return chosen


def tokens_within(spans: Sequence[tuple[int, int]], phrase: Phrase, begin: int = 0) -> list[int]:
    """The tokens of a phrase that stands ``begin`` characters further right."""
    first, last = phrase.begin + begin, phrase.end + begin
    return [index for index, (a, b) in enumerate(spans) if first <= a < b <= last]


def code_questions(llm: AudioLLM, texts: Sequence[str], num_audio: int) -> Coded:
    """The whole question about each text, as in scoring, with ``num_audio`` tokens of sound."""
    sound = CONTROL["audio_token"]
    coded = llm.tokenizer(
        [llm.question.ask(text).replace(sound, sound * num_audio) for text in texts],
        add_special_tokens=False,
        padding=True,
        return_tensors="pt",
        return_offsets_mapping=True,
    )
    ids = coded["input_ids"]
    begin = llm.question.template.index(CAPTION)
    spans = [[(a, b) for a, b in row] for row in coded["offset_mapping"].tolist()]
    return Coded(ids, coded["attention_mask"], ids == llm.audio_id, spans, begin)
