"""Prompt to text features: FLAN-T5 as the official model uses it, or a small MiniLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int8
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.core.config import NetworkConfig, parse_config
from resonate_audio.core.documents.json_text import read_object
from resonate_audio.core.errors import CheckpointError, InputError
from resonate_audio.core.types import TextFeatures
from resonate_audio.model.checkpoint import (
    MappedWeights,
    State,
    load_strict,
    read_tokenizer,
    read_weights,
)
from resonate_audio.model.clap_text import ClapText, ClapTextConfig, rename_clap_text
from resonate_audio.model.minilm import MiniLM, MiniLMConfig, rename_minilm

if TYPE_CHECKING:
    from tokenizers import Tokenizer

INT8_SUFFIX = ".int8"
SCALE_SUFFIX = ".scale"
ENCODER_FILES = ("config.json", "tokenizer.json", "model.safetensors")
_SECOND_NAME = "encoder.embed_tokens.weight"
POOLED_FOLDER = "pooled"
TOKENS_AT_ONCE = 16
"""Padding that is zero anyway is computed up to a multiple of this, and no further."""
"""Where, in an encoder's folder, the same files lie of the encoder that gives the pooled vector."""


class PooledEncoderConfig(NetworkConfig):
    """The text tower of a LAION-CLAP, whose one vector stands for a whole prompt."""

    repo_id: str
    """Hub id that the weights come from."""
    revision: str | None = None
    """Commit or tag of ``repo_id``; None: the newest."""
    dim: int = Field(ge=1)
    """Width of the pooled vector."""


class TextEncoderConfig(NetworkConfig):
    """Which text encoder, from where, and how many tokens it sees."""

    kind: Literal["t5", "minilm"]
    """``t5``: every one of the padded positions takes part. ``minilm``: padding is zero."""
    repo_id: str
    """Hub id that the weights come from."""
    revision: str | None = None
    """Commit or tag of ``repo_id``; None: the newest."""
    num_tokens: int = Field(default=77, ge=2)
    """Prompts are padded and cut to this many tokens."""
    dim: int = Field(ge=1)
    """Width of the token features, and of the pooled ones where ``pooled`` is None."""
    pooled: PooledEncoderConfig | None = None
    """A second encoder for the pooled vector; None: a mean of the token features."""

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled features."""
        return self.dim if self.pooled is None else self.pooled.dim


class TextEncoder(nn.Module):
    """A frozen language model and its tokenizer: texts in, ``TextFeatures`` out."""

    def __init__(
        self,
        config: TextEncoderConfig,
        network: nn.Module,
        tokenizer: Tokenizer,
        pooled: PooledEncoder | None = None,
        mapped: MappedWeights | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.pooled = pooled
        self.network = network.eval().requires_grad_(False)
        tokenizer.enable_truncation(config.num_tokens)
        tokenizer.enable_padding(length=config.num_tokens, **_padding(config, tokenizer))
        self._tokenizer = tokenizer
        self._mapped = mapped

    @classmethod
    def from_folder(cls, config: TextEncoderConfig, folder: Path) -> TextEncoder:
        """Build the encoder from ``config.json``, ``tokenizer.json`` and ``model.safetensors``.

        Raises:
            CheckpointError: a file is missing or broken, or the width is not ``config.dim``.
        """
        for name in ENCODER_FILES:
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder}: text encoder file {name} is missing")
        build = _build_t5 if config.kind == "t5" else _build_minilm
        network, width = build(folder / "config.json")
        if width != config.dim:
            raise CheckpointError(
                f"{folder}: text encoder is {width} wide, the model expects {config.dim}"
            )
        weights, mapped = folder / "model.safetensors", None
        if config.kind == "t5":
            state = _with_second_name(t5_encoder_only(dequantize(read_weights(weights))))
            mapped = MappedWeights.of(weights, {name: _in_file(name) for name in state})
            load_strict(network, state, str(weights), assign=True, looked_at=mapped)
        else:
            load_strict(network, rename_minilm(dequantize(read_weights(weights))), str(weights))
        pooled = None
        if config.pooled is not None:
            place = folder / POOLED_FOLDER
            pooled = PooledEncoder.from_folder(config.pooled, config.num_tokens, place)
        return cls(config, network, read_tokenizer(folder / "tokenizer.json"), pooled, mapped)

    def states(self) -> list[Mapping[str, Tensor]]:
        """Weights of every network in it; from their file where that spares memory."""
        own = self._mapped or dict(self.network.state_dict())
        return [own, *([] if self.pooled is None else [dict(self.pooled.network.state_dict())])]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def num_cut(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is longer than ``num_tokens`` and loses its end."""
        return [bool(encoding.overflowing) for encoding in self._tokenize(texts)]

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """Encode texts, each padded or cut to ``num_tokens``.

        ``t5`` (official): tokens = last hidden state with the mask given to T5; pooled = plain
        mean over all positions, padding included. ``minilm``: padded positions are zero and
        pooled is the mean over the real ones. With an encoder of its own, pooled is what that
        gives.

        Returns:
            tokens (row, token, dim) and pooled (row, dim), on the encoder's device.

        Raises:
            InputError: there is no text.
        """
        if not texts:
            raise InputError("no prompt to encode: give at least one text")
        encodings = self._tokenize(texts)
        ids = torch.tensor([encoding.ids for encoding in encodings], device=self.device)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=self.device)
        if self.config.kind == "minilm":
            longest = -(-int(mask.sum(dim=1).max()) // TOKENS_AT_ONCE) * TOKENS_AT_ONCE
            ids, inside = ids[:, :longest], mask[:, :longest].bool()
            hidden = F.pad(self.network(ids, inside), (0, 0, 0, mask.shape[1] - ids.shape[1]))
            found = masked_features(hidden, mask.bool())
        else:
            hidden = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
            found = TextFeatures(tokens=hidden, pooled=hidden.mean(dim=1))
        if self.pooled is None:
            return found
        return TextFeatures(tokens=found.tokens, pooled=self.pooled(texts))

    def _tokenize(self, texts: Sequence[str]) -> list[Any]:
        return list(self._tokenizer.encode_batch(list(texts)))


class BorrowedTextEncoder:
    """A text encoder that has its weights in memory while it is asked and no longer."""

    def __init__(self, config: TextEncoderConfig, folder: Path) -> None:
        """Take a folder as ``TextEncoder.from_folder`` does; it is read at each use."""
        self.config, self.folder = config, folder
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> BorrowedTextEncoder:
        """Where it will compute."""
        self.device = device
        return self

    def states(self) -> list[Mapping[str, Tensor]]:
        """As ``TextEncoder.states``."""
        return self._read().states()

    def num_cut(self, texts: Sequence[str]) -> list[bool]:
        """As ``TextEncoder.num_cut``."""
        return self._read().num_cut(texts)

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """As ``TextEncoder.encode``."""
        return self._read().encode(texts)

    def _read(self) -> TextEncoder:
        return TextEncoder.from_folder(self.config, self.folder).to(self.device)


class PooledEncoder(nn.Module):
    """A frozen CLAP text tower and its tokenizer: texts in, a vector of unit length each out."""

    def __init__(self, network: ClapText, tokenizer: Tokenizer, num_tokens: int) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        tokenizer.enable_truncation(num_tokens)
        tokenizer.enable_padding(length=num_tokens, pad_id=network.pad_token_id, pad_token="<pad>")
        self._tokenizer = tokenizer

    @classmethod
    def from_folder(
        cls, config: PooledEncoderConfig, num_tokens: int, folder: Path
    ) -> PooledEncoder:
        """Build it from ``config.json``, ``tokenizer.json`` and ``model.safetensors``.

        Raises:
            CheckpointError: a file is missing or broken, or the width is not ``config.dim``.
        """
        for name in ENCODER_FILES:
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder}: text encoder file {name} is missing")
        path = folder / "config.json"
        sizes = parse_config(ClapTextConfig, _read_json(path), str(path))
        if sizes.projection_dim != config.dim:
            raise CheckpointError(
                f"{folder}: text encoder is {sizes.projection_dim} wide, the model expects "
                f"{config.dim}"
            )
        network, weights = ClapText(sizes), folder / "model.safetensors"
        load_strict(network, rename_clap_text(dequantize(read_weights(weights))), str(weights))
        return cls(network, read_tokenizer(folder / "tokenizer.json"), num_tokens)

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Float[Tensor, "row dim"]:
        """Embed texts, each padded or cut to the number of tokens."""
        device = self.network.pooler.weight.device
        encodings = self._tokenizer.encode_batch(list(texts))
        ids = torch.tensor([encoding.ids for encoding in encodings], device=device)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=device)
        embedded: Tensor = self.network(ids, mask.bool())
        return embedded


def masked_features(
    hidden: Float[Tensor, "row token dim"], mask: Bool[Tensor, "row token"]
) -> TextFeatures:
    """Zero the padded positions and average the real ones."""
    tokens = torch.where(mask[..., None], hidden, hidden.new_zeros(()))
    return TextFeatures(tokens=tokens, pooled=tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True))


def quantize_rows(
    weight: Float[Tensor, "row column"],
) -> tuple[Int8[Tensor, "row column"], Float[Tensor, " row"]]:
    """Round each row to 8 bits around zero: weight ≈ int8 · scale, scale = max|row| / 127.

    The scale is rounded to half precision first, so the integers absorb its rounding error.
    """
    scale = (weight.float().abs().amax(dim=1) / 127).half()
    divisor = scale.float().clamp_min(torch.finfo(torch.float16).tiny)
    integers = (weight.float() / divisor[:, None]).round().clamp(-127, 127)
    return integers.to(torch.int8), scale


def quantize(state: Mapping[str, Tensor]) -> State:
    """Matrices as ``name.int8`` + ``name.scale``, everything else in half precision."""
    small: State = {}
    for name, value in state.items():
        if value.ndim == 2:
            small[name + INT8_SUFFIX], small[name + SCALE_SUFFIX] = quantize_rows(value)
        else:
            small[name] = value.half()
    return small


def dequantize(state: Mapping[str, Tensor]) -> State:
    """Undo ``quantize``; tensors that were never quantised pass through as they are."""
    full: State = {}
    for name, value in state.items():
        if name.endswith(INT8_SUFFIX):
            base = name.removesuffix(INT8_SUFFIX)
            full[base] = value.float() * state[base + SCALE_SUFFIX].float()[:, None]
        elif not _is_scale(name, state):
            full[name] = value
    return full


def _is_scale(name: str, state: Mapping[str, Tensor]) -> bool:
    return name.endswith(SCALE_SUFFIX) and name.removesuffix(SCALE_SUFFIX) + INT8_SUFFIX in state


def _build_t5(path: Path) -> tuple[nn.Module, int]:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(**_read_json(path))
    with torch.device("meta"):
        return T5EncoderModel(config), config.d_model


def _build_minilm(path: Path) -> tuple[nn.Module, int]:
    config = parse_config(MiniLMConfig, _read_json(path), str(path))
    return MiniLM(config), config.hidden_size


def t5_encoder_only(state: State) -> State:
    """Drop the decoder and head of a whole T5, and the second name of the shared embedding."""
    kept = {key: value for key, value in state.items() if key.startswith(("shared.", "encoder."))}
    if "shared.weight" in kept:
        kept.pop(_SECOND_NAME, None)
    return kept


def _in_file(name: str) -> str:
    return "shared.weight" if name == _SECOND_NAME else name


def _with_second_name(state: State) -> State:
    return state | ({_SECOND_NAME: state["shared.weight"]} if "shared.weight" in state else {})


def _padding(config: TextEncoderConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    token = "<pad>" if config.kind == "t5" else "[PAD]"
    pad_id = tokenizer.token_to_id(token)
    if pad_id is None:
        raise CheckpointError(f"tokenizer.json of {config.repo_id}: no {token} token")
    return {"pad_id": pad_id, "pad_token": token}


def _read_json(path: Path) -> dict[str, Any]:
    return read_object(path, CheckpointError)
