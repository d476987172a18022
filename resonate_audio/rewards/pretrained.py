"""Published judges: their folders, and loading them without a word on the terminal."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch

from resonate_audio.core.errors import (
    CheckpointError,
    ConfigError,
    ModelNotFoundError,
)
from resonate_audio.core.foreign import quiet_loading
from resonate_audio.core.paths import given_path
from resonate_audio.model.hub_client import fetch

PRETRAINED_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
"""What a transformers model is read from; never pickles, never code."""
_REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
DTYPES = ("float32", "bfloat16", "float16")


def find_pretrained(source: str) -> Path:
    """The folder of a transformers model, downloaded if need be.

    Args:
        source: a folder, or a hub id ``owner/name`` or ``owner/name@revision``.

    Raises:
        ModelNotFoundError: it is neither, or the hub does not give it.
    """
    given = given_path(source)
    if os.path.isdir(given):
        return given
    repo_id, _, revision = source.partition("@")
    if not _REPO_ID.fullmatch(repo_id):
        raise ModelNotFoundError(
            f"{source}: no such judge; expected a folder that exists, or a Hugging Face id like "
            "owner/name or owner/name@revision"
        )
    return fetch(repo_id, revision or None, PRETRAINED_FILES, local_files_only=False)


def short_name(source: str) -> str:
    """A model's name without its owner or the folders above it."""
    given = given_path(source)
    return given.resolve().name if os.path.isdir(given) else source.rpartition("/")[2]


def choose_judge_dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    """The number format asked for; by default float32 on a CPU and bfloat16 elsewhere.

    Raises:
        ConfigError: it is not one of `DTYPES`.
    """
    name = dtype or ("float32" if device.type == "cpu" else "bfloat16")
    if name not in DTYPES:
        raise ConfigError(f"dtype {name}: expected one of {' '.join(DTYPES)}")
    chosen: torch.dtype = getattr(torch, name)
    return chosen


def load_complete(model_class: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """A transformers model for scoring: its weights frozen, none of them left at random.

    Raises:
        CheckpointError: a file is missing or broken; names the first weight that no file holds.
    """
    with quiet_loading(folder):
        model, report = model_class.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} weights are missing, such as {missing[0]}; "
            "is it the right kind of model, and is the download whole?"
        )
    return model.eval().requires_grad_(False)
