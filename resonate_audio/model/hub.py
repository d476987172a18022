"""Finding a model by name: bundled with the package, a folder, or a Hugging Face repository."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from resonate_audio.core.errors import ConfigError, ModelNotFoundError, ResonateError
from resonate_audio.core.proxies import through_proxy
from resonate_audio.model.folder import (
    BUNDLED,
    INDEX_NAME,
    PARTS,
    TEXT_ENCODER,
    WEIGHTS_NAME,
    is_model_folder,
    part_folder,
)
from resonate_audio.model.text_encoder import ENCODER_FILES, TextEncoderConfig

MODEL_FILES = (
    INDEX_NAME,
    *(f"{part}/{WEIGHTS_NAME}" for part in PARTS),
    *(f"{TEXT_ENCODER}/{name}" for name in ENCODER_FILES),
)
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
        name: a bundled name, a folder, or a hub id ``owner/name`` or ``owner/name@revision``,
            looked for in that order.
        revision: commit, branch or tag of a hub repository.
        local_files_only: use only what is in the local cache.

    Raises:
        ModelNotFoundError: there is none; the message lists what exists.
    """
    bundled = bundled_models()
    if str(name) in bundled:
        return bundled[str(name)]
    if str(name) and Path(name).is_dir():
        return Path(name)
    if Path(name).is_file():
        raise ModelNotFoundError(
            f"{name}: is a file, expected a model folder; "
            "official checkpoints become one with `resonate convert`"
        )
    hub_id = _HUB_ID.match(name) if isinstance(name, str) else None
    if hub_id is not None:
        wanted = revision or hub_id["revision"]
        return fetch(hub_id["id"], wanted, MODEL_FILES, local_files_only)
    raise ModelNotFoundError(
        f"{name}: no such model; bundled: {', '.join(bundled) or 'none'}; "
        "or give a model folder, or a Hugging Face id like owner/name"
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


def fetch(repo_id: str, revision: str | None, names: Iterable[str], local_files_only: bool) -> Path:
    """Download files of a hub repository into the shared cache, or find them there.

    Raises:
        ModelNotFoundError: no such repository or revision, no access, or no network.
    """

    def download() -> Path:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=list(names),
                local_files_only=local_files_only,
            )
        )

    wanted = repo_id if revision is None else f"{repo_id} at {revision}"
    where = "not in the local cache" if local_files_only else "cannot be fetched from the hub"
    return _translated(download, ModelNotFoundError, f"{wanted}: {where}")


def upload(
    folder: Path, repo_id: str, private: bool, message: str, revision: str | None = None
) -> str:
    """Create a hub repository if need be, send a folder to it, and return its address.

    Raises:
        ResonateError: no token, no right to write, or no network.
    """

    def send() -> str:
        from huggingface_hub import create_repo, upload_folder

        address = create_repo(repo_id, private=private, exist_ok=True)
        upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=message, revision=revision
        )
        return str(address)

    return _translated(send, ResonateError, f"{repo_id}: cannot be sent to the hub")


def hub_constants() -> Any:
    """The hub's settings, which it reads from the environment when it is imported.

    Raises:
        ConfigError: one of them cannot be used.
    """
    try:
        from huggingface_hub import constants
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"HF_ENDPOINT={os.environ.get('HF_ENDPOINT', '')}: the hub's library refuses its "
            f"variables ({error}); unset them, or see HF_HOME"
        ) from error
    return constants


ResultT = TypeVar("ResultT")


def _translated(
    action: Callable[[], ResultT], failure: type[ResonateError], prefix: str
) -> ResultT:
    from httpx2 import InvalidURL

    constants = hub_constants()
    from huggingface_hub import errors

    # The HTTP library under the hub changed between its major versions; this name did not.
    http_error: type[Exception] = getattr(errors, "HTTPError", OSError)
    try:
        return action()
    # RuntimeError: a user without a home, in which the cache would be.
    except (OSError, ValueError, ImportError, RuntimeError, InvalidURL, http_error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        proxy = through_proxy(constants.ENDPOINT)
        raise failure(f"{prefix} ({reason[:200]}){proxy}") from error
