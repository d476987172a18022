"""Finding a model by name: bundled, published, a folder, or a Hugging Face repository."""

from __future__ import annotations

import difflib
import os
import re
from importlib.resources import files
from pathlib import Path

from resonate_audio.core.errors import ModelNotFoundError
from resonate_audio.core.paths import given_path
from resonate_audio.model.adapter import ADAPTER_NAME
from resonate_audio.model.folder import (
    BUNDLED,
    INDEX_NAME,
    PARTS,
    TEXT_ENCODER,
    WEIGHTS_NAME,
    is_model_folder,
    part_folder,
)
from resonate_audio.model.hub_client import fetch
from resonate_audio.model.published.names import PUBLISHED, published_model
from resonate_audio.model.published.ready import provide
from resonate_audio.model.text_encoder import ENCODER_FILES, POOLED_FOLDER, TextEncoderConfig

MODEL_FILES = (
    INDEX_NAME,
    ADAPTER_NAME,
    *(f"{part}/{WEIGHTS_NAME}" for part in PARTS),
    *(f"{TEXT_ENCODER}/{name}" for name in ENCODER_FILES),
    *(f"{TEXT_ENCODER}/{POOLED_FOLDER}/{name}" for name in ENCODER_FILES),
)
EXPORTS = ("", "model", "export", "export/model")
"""Where a folder that somebody names may hold a model: a training's own folder, or its export."""
_HUB_ID = re.compile(r"^(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?$")


def bundled_models() -> dict[str, Path]:
    """Folders of the models that came with this installation, by name."""
    package = Path(str(files("resonate_audio")))
    folders = {name: package / place for name, place in BUNDLED.items()}
    return {name: folder for name, folder in folders.items() if is_model_folder(folder)}


def find_model(
    name: str | Path, revision: str | None = None, local_files_only: bool = False
) -> Path:
    """The folder of a model, downloaded if need be.

    Args:
        name: a bundled or published name (``resonate``, ``AndreasXi/Resonate:Resonate_PT.pth``),
            a folder (of a model, or of a training that exported one), or a hub id ``owner/name``
            or ``owner/name@revision``, looked for in that order. A published one is fetched and
            converted the first time.
        revision: commit, branch or tag of a hub repository.
        local_files_only: use only what is in the local cache.

    Raises:
        ModelNotFoundError: there is none; the message lists what exists.
    """
    bundled = bundled_models()
    if str(name) in bundled:
        return bundled[str(name)]
    plain, _, at = str(name).partition("@")
    published = published_model(plain) if isinstance(name, str) else None
    if published is not None:
        return provide(published, revision or at or None, local_files_only)
    given = given_path(name)
    if str(name) and os.path.isdir(given):
        inside = (given / place for place in EXPORTS)
        return next((folder for folder in inside if is_model_folder(folder)), given)
    if os.path.isfile(given):
        raise ModelNotFoundError(
            f"{name}: is a file, expected a model folder; "
            "official checkpoints become one with `resonate convert`"
        )
    hub_id = _HUB_ID.match(name) if isinstance(name, str) else None
    if hub_id is not None:
        wanted = revision or hub_id["revision"]
        folder = fetch(hub_id["id"], wanted, MODEL_FILES, local_files_only)
        if not is_model_folder(folder):
            raise ModelNotFoundError(
                f"{name}: the repository holds no {INDEX_NAME}, so it is no model folder; "
                "published checkpoints become one with `resonate convert`"
            )
        return folder
    known = [*bundled, *(model.name for model in PUBLISHED)]
    closest = difflib.get_close_matches(str(name).lower()[:100], known, 3, 0) or known[:3]
    raise ModelNotFoundError(
        f"{name}: no such model; bundled: {', '.join(bundled) or 'none'}; closest names: "
        f"{', '.join(closest)}; or give a model folder, or a Hugging Face id like owner/name"
    )


def find_text_encoder(config: TextEncoderConfig, model: Path, local_files_only: bool) -> Path:
    """The folder of a model's text encoder: inside the model, or its own hub repository.

    Raises:
        ModelNotFoundError: it is neither there nor can it be fetched.
    """
    inside = part_folder(model, TEXT_ENCODER)
    if inside.is_dir():
        return inside
    return fetch(config.repo_id, config.revision, ENCODER_FILES, local_files_only)
