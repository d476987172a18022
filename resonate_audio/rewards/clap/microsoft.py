"""MS-CLAP 2023: the CLAP score of the paper's tables, from the published weights."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from resonate_audio.core.errors import CheckpointError, ModelNotFoundError
from resonate_audio.core.foreign import quiet_loading
from resonate_audio.core.paths import given_path
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.model.checkpoint import fingerprint_weights, read_weights
from resonate_audio.model.hub_client import fetch
from resonate_audio.rewards.base import LocalJudge, make_rewards
from resonate_audio.rewards.clap.microsoft_network import (
    SAMPLE_RATE_HZ,
    WINDOW_S,
    MSClap,
    build_ms_clap,
)
from resonate_audio.rewards.hearing import hear

DEFAULT_SOURCE, DEFAULT_TOKENIZER = "microsoft/msclap", "openai-community/gpt2"
WEIGHT_NAMES = ("CLAP_weights_2023.safetensors", "CLAP_weights_2023.pth", "model.safetensors")
TOKENIZER_NAMES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")
WINDOW_SAMPLES = WINDOW_S * SAMPLE_RATE_HZ
TEXT_TOKENS = 77
TEXT_END = " <|endoftext|>"
"""Follows every text; its state is what stands for the text."""

Mode = Literal["deterministic", "paper"]
TILED = "mean of 7 s windows, the last ending with the sound"


class MSClapModel:
    """Network and tokenizer: hears sounds and reads texts; PAM and embeddings use it, too."""

    def __init__(self, network: MSClap, tokenizer: Any, source: str, batch_size: int = 8) -> None:
        """Take parts that are ready.

        Args:
            network: see `build_ms_clap`.
            tokenizer: GPT-2's.
            source: where the weights come from.
            batch_size: windows or texts in one forward pass.
        """
        self.network, self.tokenizer, self.source = network, tokenizer, source
        self.fingerprint = fingerprint_weights([network.state_dict()])[:8]
        self._batch_size = batch_size
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        source: str = DEFAULT_SOURCE,
        device: str | torch.device = "cpu",
        batch_size: int = 8,
    ) -> MSClapModel:
        """Load the published file, its conversion to safetensors, or the hub's repository.

        Args:
            source: a weights file, a folder with one of `WEIGHT_NAMES`, or a hub id. GPT-2's
                tokenizer is read from the same folder if it is there, else from the hub.
            device: where to compute.
            batch_size: windows or texts in one forward pass.

        Raises:
            ModelNotFoundError: there is no such file or folder, and the hub does not give it.
            CheckpointError: the file is broken or of another model; names the first wrong key.
        """
        weights = find_weights(source)
        network = build_ms_clap(read_weights(weights), weights)
        tokenizer = load_tokenizer(weights.parent)
        return cls(network.to(device), tokenizer, source, batch_size)

    @torch.inference_mode()
    def embed_windows(
        self, windows: Float32[Tensor, "row window sample"]
    ) -> Float[Tensor, "row window dim"]:
        """Unit vectors of windows at `SAMPLE_RATE_HZ`."""
        device, flat = self.network.logit_scale.device, windows.flatten(0, 1)
        with self._lock:
            parts = [
                self.network.embed_windows(part.to(device)).cpu()
                for part in torch.split(flat, self._batch_size)
            ]
        return torch.cat(parts).view(*windows.shape[:2], -1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], mode: Mode) -> Float[Tensor, "row dim"]:
        """Unit vectors of texts."""
        device = self.network.logit_scale.device
        tokens, last = tokenize(self.tokenizer, texts, mode)
        size = self._batch_size
        with self._lock:
            parts = [
                self.network.embed_tokens(
                    tokens[start : start + size].to(device), last[start : start + size].to(device)
                ).cpu()
                for start in range(0, len(tokens), size)
            ]
        return torch.cat(parts)


class MSClapJudge(LocalJudge):
    """What the judges that hear with MS-CLAP have in common."""

    default_name: str
    windows: Mapping[Mode, str]
    """Which windows each mode hears."""

    def __init__(
        self, model: MSClapModel, mode: Mode = "deterministic", name: str | None = None
    ) -> None:
        """Take a model that is ready.

        Args:
            model: network and tokenizer.
            mode: which windows are heard.
            name: for logs; by default the class's.
        """
        self.model, self.mode, self.name = model, mode, name or self.default_name
        self._judge = f"{self.name}[{model.source}@{model.fingerprint}, {self.windows[mode]}]"

    @classmethod
    def from_pretrained(
        cls,
        source: str = DEFAULT_SOURCE,
        device: str | torch.device = "cpu",
        mode: Mode = "deterministic",
        batch_size: int = 8,
    ) -> MSClapJudge:
        """Load as `MSClapModel.from_pretrained` does, with its errors."""
        return cls(MSClapModel.from_pretrained(source, device, batch_size), mode)


class MSClapReward(MSClapJudge):
    """Cosine between what MS-CLAP 2023 hears and what it reads.

    score = a·t / (|a| |t|)   [CLAP, arXiv:2206.04769; the 2023 version arXiv:2309.05767]

    Paper mode hears one random window of 7 s as the published wrapper does; it draws without a
    seed, here the sound itself is the seed, so that a clip always has the same score. It also
    reads as the wrapper does: a text over 77 tokens loses its end mark, and each "!" in a text
    moves the token that stands for the text one to the left. Deterministic mode hears all of the
    sound: windows of 7 s one after another, the last one ending with the sound; the score is the
    mean of their cosines. A sound under 7 s is repeated, in both.

    Differs from the wrapper in both modes: resampled by soxr instead of torchaudio, several
    channels are averaged instead of put one after another, always float32.
    """

    default_name = "ms-clap"
    windows: Mapping[Mode, str] = {
        "deterministic": TILED,
        "paper": "one 7 s crop at random, seeded by the sound",
    }

    def _score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        heard = self.model.embed_windows(choose_windows(hear(audio, SAMPLE_RATE_HZ), self.mode))
        read = self.model.embed_texts(prompts, self.mode)
        cosines = (heard * read[:, None]).sum(dim=2)
        return make_rewards(cosines.double().mean(dim=1), self._judge, len(prompts))


def choose_windows(
    samples: Float32[Tensor, "row sample"], mode: Mode
) -> Float32[Tensor, "row window window_sample"]:
    """The stretches of 7 s that a mode hears; see `MSClapReward`.

    Args:
        samples: at `SAMPLE_RATE_HZ`.
        mode: which windows.
    """
    if samples.shape[1] <= WINDOW_SAMPLES:
        return repeat_to_window(samples)[:, None]
    return tile_windows(samples) if mode == "deterministic" else random_windows(samples)


def repeat_to_window(
    samples: Float32[Tensor, "row sample"],
) -> Float32[Tensor, "row window_sample"]:
    """Repeat short sounds until 7 s are full."""
    times = -(-WINDOW_SAMPLES // samples.shape[1])
    return samples.repeat(1, times)[:, :WINDOW_SAMPLES]


def tile_windows(
    samples: Float32[Tensor, "row sample"],
) -> Float32[Tensor, "row window window_sample"]:
    """Windows one after another; the last ends with the sound, and may overlap the one before."""
    last = samples.shape[1] - WINDOW_SAMPLES
    starts = [*range(0, last, WINDOW_SAMPLES), last]
    return torch.stack([samples[:, start : start + WINDOW_SAMPLES] for start in starts], dim=1)


def random_windows(
    samples: Float32[Tensor, "row sample"],
) -> Float32[Tensor, "row window window_sample"]:
    """One window of each sound, from where the sound's own bytes say."""
    rows = []
    for row in samples:
        digest = hashlib.sha256(row.contiguous().numpy().data).digest()
        start = random.Random(digest).randrange(len(row) - WINDOW_SAMPLES)
        rows.append(row[start : start + WINDOW_SAMPLES])
    return torch.stack(rows)[:, None]


def tokenize(
    tokenizer: Any, texts: Sequence[str], mode: Mode
) -> tuple[Int64[Tensor, "row token"], Int64[Tensor, " row"]]:
    """Tokens of each text, zeros behind them, and the place of the token that stands for it.

    Deterministic: the end mark, which is kept however long the text is. Paper: the number of
    tokens that are not 0, less one; 0 is both what fills the row and GPT-2's number for "!".
    """
    rows = [tokenizer.encode(text + TEXT_END) for text in texts]
    if mode == "paper":
        rows = [row[:TEXT_TOKENS] for row in rows]
        last = [sum(token != 0 for token in row) - 1 for row in rows]
    else:
        rows = [
            [*row[: TEXT_TOKENS - 1], row[-1]] if len(row) > TEXT_TOKENS else row for row in rows
        ]
        last = [len(row) - 1 for row in rows]
    longest = max(len(row) for row in rows)
    filled = [row + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(filled), torch.tensor(last)


def find_weights(source: str) -> Path:
    """The weights file that a name stands for, downloaded if need be.

    Raises:
        ModelNotFoundError: there is no such file or folder, and the hub does not give it.
        CheckpointError: the folder holds none.
    """
    path = given_path(source)
    if os.path.isfile(path):
        return path
    if not os.path.isdir(path):
        if source.count("/") != 1 or path.suffix.lower() in (".pth", ".safetensors"):
            raise ModelNotFoundError(
                f"{source}: no such weights; expected CLAP_weights_2023.pth, a folder with it, or "
                f"a Hugging Face id such as {DEFAULT_SOURCE}"
            )
        repo_id, _, revision = source.partition("@")
        path = fetch(repo_id, revision or None, WEIGHT_NAMES[:2], local_files_only=False)
    for name in WEIGHT_NAMES:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"{source}: holds none of {', '.join(WEIGHT_NAMES)}")


def load_tokenizer(folder: Path) -> Any:
    """GPT-2's tokenizer from a folder if it is there, else from the hub.

    Raises:
        ModelNotFoundError: the hub does not give it.
        CheckpointError: its files are broken.
    """
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in TOKENIZER_NAMES[:2]):
        names = (*TOKENIZER_NAMES, "config.json")
        folder = fetch(DEFAULT_TOKENIZER, None, names, local_files_only=False)
    with quiet_loading(folder):
        return AutoTokenizer.from_pretrained(folder)
