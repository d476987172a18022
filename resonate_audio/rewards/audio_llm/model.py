"""Audio LLMs that answer yes or no in one forward pass: sound and text in, log-odds out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from resonate_audio.core.errors import CheckpointError, RewardError
from resonate_audio.core.foreign import quiet_loading
from resonate_audio.rewards.audio_llm.question import Chat, Question, make_question
from resonate_audio.rewards.audio_llm.yes_no import yes_probability
from resonate_audio.rewards.pretrained import load_complete

SAMPLE_RATE_HZ = 16_000
SHORTEST_S = 0.1
"""Sounds under this have too few frames for the encoders' convolutions."""
VOCABULARY_CHUNK = 16_384
"""Words of the head brought to float32 at a time: all 152,000 would take 2 GB."""
WHISPER_PAD_HOPS = 4
"""Hops of zeros after a sound: the last frames then hold the same as under 30 s of zeros."""

Inputs = dict[str, Tensor]
"""What a model takes, all with rows first: token ids, mel features and their masks."""


@dataclass(frozen=True)
class Family:
    """What sets one family of audio LLMs apart from the next."""

    model_class: str
    """In transformers; of the Omni models only the thinker, which hears and reads."""
    chat: Chat
    pads_sound: bool
    """Whether zeros follow the sound before its spectrum is taken (else it is reflected)."""
    count_tokens: Callable[[int], int]
    """Audio tokens that stand for so many mel frames."""
    fixed_length: bool = False
    """Whether the encoder takes only spectrograms of its full length."""


def pooled_tokens(num_frames: int) -> int:
    """Tokens after a convolution of stride 2 and a mean over pairs: 25 a second."""
    return ((num_frames - 1) // 2 + 1 - 2) // 2 + 1


def chunked_tokens(num_frames: int) -> int:
    """Tokens after three convolutions of stride 2 over chunks of 100 frames: 13 a second."""
    full, rest = divmod(num_frames, 100)
    for _ in range(3):
        rest = (rest + 1) // 2
    return 13 * full + rest


_QWEN_SOUND = "<|audio_bos|><|AUDIO|><|audio_eos|>"
QWEN2_AUDIO = Family(
    model_class="Qwen2AudioForConditionalGeneration",
    chat=Chat("You are a helpful assistant.", f"Audio 1: {_QWEN_SOUND}\n", ("Yes", "No")),
    pads_sound=True,
    count_tokens=pooled_tokens,
    fixed_length=True,
)
QWEN2_5_OMNI = Family(
    model_class="Qwen2_5OmniThinkerForConditionalGeneration",
    chat=Chat(
        "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of "
        "perceiving auditory and visual inputs, as well as generating text and speech.",
        _QWEN_SOUND,
        ("Yes", "No"),
    ),
    pads_sound=True,
    count_tokens=pooled_tokens,
)
QWEN3_OMNI = Family(
    model_class="Qwen3OmniMoeThinkerForConditionalGeneration",
    chat=Chat(None, "<|audio_start|><|audio_pad|><|audio_end|>", ("yes", "no")),
    pads_sound=False,
    count_tokens=chunked_tokens,
)
FAMILIES = {
    "qwen2_audio": QWEN2_AUDIO,
    "qwen2_5_omni": QWEN2_5_OMNI,
    "qwen2_5_omni_thinker": QWEN2_5_OMNI,
    "qwen3_omni_moe": QWEN3_OMNI,
    "qwen3_omni_moe_thinker": QWEN3_OMNI,
}
"""By ``model_type`` of ``config.json``."""


@dataclass(frozen=True)
class Answers:
    """What a model answers in each row."""

    p_yes: Float32[Tensor, " row"]
    """P(yes) / (P(yes) + P(no))."""
    log_odds: Float32[Tensor, " row"]
    """Logarithm of P(yes) / P(no)."""
    mass: Float32[Tensor, " row"]
    """P(yes) + P(no): how much of the model's belief the question got."""


class AudioLLM:
    """A model, its tokenizer and its mel front end, asked one question.

    Training a judge takes ``prepare`` and ``log_odds`` only, and keeps gradients.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, extractor: Any, question: str = "paper"
    ) -> None:
        """Put together what the caller built or loaded.

        Args:
            model: of one of the `FAMILIES`, with its ``config``.
            tokenizer: a transformers tokenizer that knows the family's audio token.
            extractor: a ``WhisperFeatureExtractor`` for 16 kHz.
            question: preset or wording, as `make_question` takes it.

        Raises:
            CheckpointError: another kind of model, or no answer is one token of its vocabulary.
            ConfigError: the question is neither a preset nor a wording.
        """
        self.model, self.tokenizer, self.extractor = model, tokenizer, extractor
        config: Any = model.config
        self.family = find_family(config.model_type)
        self.question: Question = make_question(question, self.family.chat)
        self.yes_ids = single_tokens(tokenizer, self.question.yes)
        self.no_ids = single_tokens(tokenizer, self.question.no)
        self.audio_id = int(config.audio_token_id)
        self.max_samples = self._max_samples(config)
        """Longest sound it hears, at 16 kHz; None when there is no limit."""
        if self._encode(self.question.template).count(self.audio_id) != 1:
            raise CheckpointError(
                f"{config.model_type}: the tokenizer does not write the model's audio token, "
                f"id {self.audio_id}; do both come from one folder?"
            )
        self._lock = threading.Lock()

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        question: str = "paper",
    ) -> AudioLLM:
        """Load a judge for scoring: weights frozen, no vision tower, no talker.

        Raises:
            CheckpointError: files are missing or broken, or the model is of no known family.
            ConfigError: the question is neither a preset nor a wording.
        """
        import transformers

        with quiet_loading(folder):
            config = transformers.AutoConfig.from_pretrained(folder)
            family = find_family(config.model_type)
            model = load_complete(getattr(transformers, family.model_class), folder, dtype)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
        drop_vision(model)
        model.to(device)
        # convolutions over spectrograms take 0.84 of the pass's time so (nano-lalm, one core)
        model.to(memory_format=torch.channels_last)
        return cls(model, tokenizer, extractor, question)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def prepare(self, samples: Float[Tensor, "row sample"], texts: Sequence[str]) -> Inputs:
        """What the model takes to be asked whether each sound has what its text says.

        Rows are padded on the left, so that the answer comes at the last position of each. All
        sounds have one length, so no feature depends on the other rows of a batch.

        Args:
            samples: mono at 16 kHz, full scale at 1; what is over ``max_samples`` is not heard.
            texts: one caption a row.

        Returns:
            Model inputs on the model's device.

        Raises:
            RewardError: a sound is too short, or a caption holds one of the model's control tokens.
        """
        features, num_frames = self._features(samples)
        num_tokens = self.family.count_tokens(num_frames)
        ids, mask = self._tokens(texts, num_tokens)
        frames = torch.arange(features.shape[2]) < num_frames
        weights = next(self.model.parameters())
        return {
            "input_ids": ids.to(weights.device),
            "attention_mask": mask.to(weights.device),
            "input_features": features.to(weights.device, weights.dtype),
            "feature_attention_mask": frames.long().repeat(len(features), 1).to(weights.device),
        }

    def log_odds(self, inputs: Mapping[str, Tensor]) -> Float32[Tensor, " row"]:
        """Logarithm of P(yes) / P(no) as the next token, with its gradient.

        z = logsumexp over spellings of yes − logsumexp over spellings of no   [arXiv:2601.14728]

        Args:
            inputs: from `prepare`.
        """
        yes, no = self._answer_logits(self._last_hidden(inputs))
        return yes.logsumexp(dim=1) - no.logsumexp(dim=1)

    @torch.no_grad()
    def answers(self, inputs: Mapping[str, Tensor]) -> Answers:
        """The answers and how much probability they got, without gradients.

        The head is computed in float32 from the last position only: in bfloat16, 1,000 sounds
        share 18 distinct scores.

        Raises:
            RewardError: the model computed NaN.
        """
        hidden = self._last_hidden(inputs)
        yes, no = self._answer_logits(hidden)
        given = torch.cat([yes, no], dim=1).logsumexp(dim=1)
        return Answers(
            p_yes=yes_probability(yes, no),
            log_odds=yes.logsumexp(dim=1) - no.logsumexp(dim=1),
            mass=(given - self._log_total(hidden)).exp(),
        )

    @property
    def _head(self) -> nn.Module:
        model: Any = self.model
        head: nn.Module = model.get_output_embeddings()
        return head

    def _last_hidden(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "row dim"]:
        """What goes into the head at the last position.

        Taken where it enters the head, because the place of the text model inside these models
        changed between releases of transformers; the head itself then sees one position, and
        never builds (row, token, word) logits.
        """
        assert bool(inputs["attention_mask"][:, -1].all()), "rows must be padded on the left"
        caught: list[Tensor] = []

        def keep_last(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            caught.append(arguments[0][:, -1:])
            return (caught[-1],)

        with self._lock:
            handle = self._head.register_forward_pre_hook(keep_last)
            try:
                self.model(**inputs, use_cache=False)
            finally:
                handle.remove()
        return caught[0][:, 0]

    def _answer_logits(
        self, hidden: Float[Tensor, "row dim"]
    ) -> tuple[Float32[Tensor, "row yes"], Float32[Tensor, "row no"]]:
        words: Any = self._head.weight
        logits = F.linear(hidden.float(), words[self.yes_ids + self.no_ids].float())
        return logits[:, : len(self.yes_ids)], logits[:, len(self.yes_ids) :]

    def _log_total(self, hidden: Float[Tensor, "row dim"]) -> Float32[Tensor, " row"]:
        words: Any = self._head.weight
        parts = [
            F.linear(hidden.float(), chunk.float()).logsumexp(dim=1)
            for chunk in words.split(VOCABULARY_CHUNK)
        ]
        return torch.stack(parts).logsumexp(dim=0)

    def _max_samples(self, config: Any) -> int | None:
        if self.family.fixed_length:
            return int(2 * config.audio_config.max_source_positions * self.extractor.hop_length)
        return int(self.extractor.n_samples) if self.family.pads_sound else None

    def _features(
        self, samples: Float[Tensor, "row sample"]
    ) -> tuple[Float32[Tensor, "row band frame"], int]:
        """Log-mel features, and how many of their frames are sound."""
        waves = samples[:, : self.max_samples].detach().to("cpu", torch.float32).numpy()
        num_samples, hop = waves.shape[1], int(self.extractor.hop_length)
        if num_samples < SHORTEST_S * SAMPLE_RATE_HZ:
            raise RewardError(
                f"a sound of {num_samples / SAMPLE_RATE_HZ:.3f} s is too short to be judged; "
                f"give at least {SHORTEST_S} s"
            )
        if not self.family.pads_sound:
            return self._log_mel(waves), num_samples // hop
        assert self.max_samples is not None
        zeros = min(WHISPER_PAD_HOPS * hop, self.max_samples - num_samples)
        features = self._log_mel(np.pad(waves, ((0, 0), (0, zeros))))
        num_frames = -(-num_samples // hop)
        if self.family.fixed_length:
            return self._fill(features), num_frames
        return features[:, :, :num_frames], num_frames

    def _log_mel(
        self, waves: Float32[np.ndarray, "row sample"]
    ) -> Float32[Tensor, "row band frame"]:
        made = self.extractor(
            list(waves),
            sampling_rate=SAMPLE_RATE_HZ,
            padding=False,
            truncation=False,
            return_tensors="pt",
        )
        return torch.as_tensor(made["input_features"], dtype=torch.float32)

    def _fill(
        self, features: Float32[Tensor, "row band frame"]
    ) -> Float32[Tensor, "row band full_frame"]:
        """Go on with silence, as the log-mel of zeros has it, up to the encoder's length."""
        assert self.max_samples is not None
        missing = self.max_samples // int(self.extractor.hop_length) - features.shape[2]
        silence = features[:, :, -1:].expand(-1, -1, missing)
        return torch.cat([features, silence], dim=2)

    def _tokens(
        self, texts: Sequence[str], num_tokens: int
    ) -> tuple[Int64[Tensor, "row token"], Int64[Tensor, "row token"]]:
        rows = [self._row_tokens(row, text, num_tokens) for row, text in enumerate(texts, 1)]
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), int(self.tokenizer.pad_token_id))
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, longest - len(row) :] = torch.tensor(row)
            mask[index, longest - len(row) :] = 1
        return ids, mask

    def _row_tokens(self, row: int, text: str, num_tokens: int) -> list[int]:
        for token in self.tokenizer.get_added_vocab():
            if token in text:
                raise RewardError(
                    f"the text of row {row} holds {token}, which steers the judge; take it out"
                )
        ids = self._encode(self.question.ask(text))
        place = ids.index(self.audio_id)
        return [*ids[:place], *[self.audio_id] * num_tokens, *ids[place + 1 :]]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids


def find_family(model_type: str) -> Family:
    """The family of a model by what its configuration calls it.

    Raises:
        CheckpointError: it is none that can be asked about sounds; lists those that can.
    """
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"a model of type {model_type} cannot be asked about sounds here; "
            f"expected one of {' '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def single_tokens(tokenizer: Any, spellings: Sequence[str]) -> list[int]:
    """Ids of those spellings that are one token.

    Raises:
        CheckpointError: none is.
    """
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in spellings]
    ids = sorted({tokens[0] for tokens in encoded if len(tokens) == 1})
    if not ids:
        raise CheckpointError(
            f"the tokenizer has no single token for any of {', '.join(map(repr, spellings))}"
        )
    return ids


def drop_vision(model: nn.Module) -> None:
    """Free the vision tower, which a sound never reaches (about 1.4 GB of Qwen2.5-Omni)."""
    for module in list(model.modules()):
        if hasattr(module, "visual"):
            del module.visual
