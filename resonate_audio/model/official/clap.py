"""The text half of a published LAION-CLAP file, as the folder of a pooled text encoder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.checkpoint import State, read_weights, write_weights
from resonate_audio.model.clap_text import ClapTextConfig
from resonate_audio.model.text_encoder import ENCODER_FILES

TEXT_HALF = ("text_branch.", "text_projection.")
HEAD_DIM = 64
"""Width of an attention head in every RoBERTa; shapes do not tell it."""


def write_pooled_encoder(source: Path, target: Path) -> None:
    """Write the encoder's three files from a folder that has them, or the published ones.

    Args:
        source: folder with ``config.json``, ``tokenizer.json`` and ``model.safetensors``, or with
            RoBERTa's ``tokenizer.json`` and LAION's checkpoint (``.pt``), of which the text half is
            kept.
        target: folder to make.

    Raises:
        CheckpointError: a file is missing or broken, or the checkpoint is no CLAP.
    """
    target.mkdir()
    published = sorted(source.glob("*.pt"))
    if not published:
        for name in ENCODER_FILES:
            if not (source / name).is_file():
                raise CheckpointError(
                    f"{source}: {name} is missing; expected the encoder's three files, or "
                    "LAION-CLAP's .pt and RoBERTa's tokenizer.json"
                )
            shutil.copyfile(source / name, target / name)
        return
    write_published_clap(published[0], source / "tokenizer.json", target)


def write_published_clap(weights: Path, tokenizer: Path, target: Path) -> None:
    """Write the encoder's three files from LAION's checkpoint and RoBERTa's tokenizer.

    Raises:
        CheckpointError: a file is missing or broken, or the checkpoint is no CLAP.
    """
    if not tokenizer.is_file():
        raise CheckpointError(f"{tokenizer}: missing, which RoBERTa's tokens come from")
    state = text_half(read_weights(weights, mapped=True), str(weights))
    config = clap_text_config(state, str(weights))
    target.mkdir(exist_ok=True)
    write_weights(target / "model.safetensors", state, {"format": "pt"})
    shutil.copyfile(tokenizer, target / "tokenizer.json")
    (target / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def text_half(state: Mapping[str, Tensor], source: str) -> State:
    """Those entries that turn a text into a vector.

    Raises:
        CheckpointError: there are none.
    """
    kept = {
        name: value
        for name, value in state.items()
        if name.startswith(TEXT_HALF) and value.is_floating_point()
    }
    if not kept:
        raise CheckpointError(
            f"{source}: no LAION-CLAP (no text_branch among {len(state)} tensors)"
        )
    return kept


def clap_text_config(state: Mapping[str, Tensor], source: str) -> ClapTextConfig:
    """Sizes of the text half, from its shapes; heads are 64 wide.

    Raises:
        CheckpointError: a tensor that tells one is missing.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in state:
            raise CheckpointError(f"{source}: {name} is missing ({len(state)} tensors found)")
        return tuple(state[name].shape)

    layer = "text_branch.encoder.layer"
    found = (re.match(rf"{re.escape(layer)}\.(\d+)\.", name) for name in state)
    vocab_size, hidden = shape("text_branch.embeddings.word_embeddings.weight")
    return ClapTextConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=shape(f"{layer}.0.intermediate.dense.weight")[0],
        num_hidden_layers=1 + max(int(match[1]) for match in found if match),
        num_attention_heads=max(1, hidden // HEAD_DIM),
        max_position_embeddings=shape("text_branch.embeddings.position_embeddings.weight")[0],
        type_vocab_size=shape("text_branch.embeddings.token_type_embeddings.weight")[0],
        projection_dim=shape("text_projection.2.weight")[0],
    )
