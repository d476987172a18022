"""Captions read by the MiniLM that comes with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from resonate_audio.core.types import TextFeatures
from resonate_audio.model.checkpoint import read_tokenizer
from resonate_audio.model.text_encoder import TextEncoder
from resonate_audio.nano.bundle import BUNDLED_FOLDER
from resonate_audio.rewards.small.judge import load_minilm


class CaptionReader:
    """MiniLM on padding as short as the texts allow: most captions have a dozen tokens."""

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:

        self.tokenizer = read_tokenizer(folder / "tokenizer.json")
        self.tokenizer.no_padding()
        self.encoders = [
            TextEncoder(
                encoder.config.model_copy(update={"num_tokens": length}),
                encoder.network,
                read_tokenizer(folder / "tokenizer.json"),
            )
            for length in (10, 16, 24, 32, encoder.config.num_tokens)
        ]

    def spans(self, texts: Sequence[str], num_tokens: int) -> list[list[tuple[int, int]]]:
        """First character of each token and the one after its last; equal where it has none."""
        return [coding.offsets[:num_tokens] for coding in self.tokenizer.encode_batch(list(texts))]

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """The features that the encoder itself gives, cut to the longest text's padding."""
        tokens: dict[int, Tensor] = {}
        pooled: dict[int, Tensor] = {}
        left = list(range(len(texts)))
        for encoder in self.encoders:
            cut = encoder.num_cut([texts[index] for index in left]) if left else []
            last = encoder is self.encoders[-1]
            short = [index for index, long in zip(left, cut, strict=True) if last or not long]
            left = [index for index in left if index not in set(short)]
            if short:
                features = encoder.encode([texts[index] for index in short])
                tokens |= dict(zip(short, features.tokens, strict=True))
                pooled |= dict(zip(short, features.pooled, strict=True))
        rows = range(len(texts))
        return TextFeatures(
            nn.utils.rnn.pad_sequence([tokens[i] for i in rows], batch_first=True),
            torch.stack([pooled[i] for i in rows]),
        )


def open_reader() -> CaptionReader:
    """The MiniLM that comes with the package."""
    return CaptionReader(load_minilm(), BUNDLED_FOLDER / "text_encoder")
