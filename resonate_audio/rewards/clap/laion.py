"""CLAP: how alike the embeddings of a sound and of its text are."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from resonate_audio.core.foreign import quiet_loading
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.base import LocalJudge, make_rewards
from resonate_audio.rewards.hearing import hear
from resonate_audio.rewards.pretrained import find_pretrained, load_complete

DEFAULT_SOURCE = "laion/larger_clap_general"
TEXT_TOKENS = 77
"""Longer texts are cut, as they were when LAION's models were trained."""


class CLAPReward(LocalJudge):
    """Cosine between the embeddings of a sound and of its text.

    score = a·t / (|a| |t|)   [LAION-CLAP, arXiv:2211.06687]

    Differs from the stock processor, which takes a random 10 s of a longer sound and, with the
    fused models, calls one random sound of every batch longer than it is: here each sound is cut
    to its first 10 s, and none is longer. A shorter one is repeated, as in the stock processor.
    Always float32.
    """

    def __init__(
        self, model: nn.Module, processor: Any, source: str, name: str = "clap", batch_size: int = 8
    ) -> None:
        """Take a model that is ready.

        Args:
            model: a transformers ``ClapModel``.
            processor: its ``ClapProcessor``; the rate and length it hears come from it.
            source: where the weights come from, for the judge's id.
            name: for logs.
            batch_size: rows in one forward pass.
        """
        self.model, self.processor, self.name = model, processor, name
        extractor = processor.feature_extractor
        self.sample_rate_hz = int(extractor.sampling_rate)
        self.longest_s = float(extractor.max_length_s)
        self._batch_size = batch_size
        self._judge = f"{name}[{source}, first {self.longest_s:g} s]"
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        source: str = DEFAULT_SOURCE,
        device: str | torch.device = "cpu",
        batch_size: int = 8,
    ) -> CLAPReward:
        """Load a folder or a hub repository of a ``ClapModel``.

        Raises:
            ModelNotFoundError: there is no such folder, and the hub does not give it.
            CheckpointError: files are missing, broken, or of another kind of model.
        """
        from transformers import ClapModel, ClapProcessor

        folder = find_pretrained(source)
        with quiet_loading(folder):
            model = load_complete(ClapModel, folder)
            processor = ClapProcessor.from_pretrained(folder)
        return cls(model.to(device), processor, source, batch_size=batch_size)

    @torch.no_grad()
    def _score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        samples = hear(audio, self.sample_rate_hz, self.longest_s)
        with self._lock:
            cosines = [
                self._cosine(samples[start : start + self._batch_size], prompts[start:])
                for start in range(0, len(samples), self._batch_size)
            ]
        return make_rewards(torch.cat(cosines), self._judge, len(prompts))

    def _cosine(
        self, samples: Float[Tensor, "row sample"], prompts: Sequence[str]
    ) -> Float[Tensor, " row"]:
        texts = self.processor.tokenizer(
            list(prompts[: len(samples)]),
            padding=True,
            truncation=True,
            max_length=TEXT_TOKENS,
            return_tensors="pt",
        )
        sounds = self.processor.feature_extractor(
            list(samples.numpy()), sampling_rate=self.sample_rate_hz, return_tensors="pt"
        )
        device = next(self.model.parameters()).device
        given = self.model(
            input_ids=texts["input_ids"].to(device),
            attention_mask=texts["attention_mask"].to(device),
            input_features=sounds["input_features"].to(device, torch.float32),
            is_longer=torch.zeros(len(samples), 1, dtype=torch.bool, device=device),
        )
        return F.cosine_similarity(given.audio_embeds, given.text_embeds)
