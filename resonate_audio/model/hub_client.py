"""The Hugging Face hub: its settings, downloads into its cache, uploads, its errors in one line."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from resonate_audio.core.errors import (
    CheckpointError,
    ConfigError,
    DiskFullError,
    ModelNotFoundError,
    OutputError,
    ResonateError,
)
from resonate_audio.core.files import NO_ROOM, file_sha256
from resonate_audio.core.proxies import through_proxy

ResultT = TypeVar("ResultT")
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG}
SHA256_LETTERS = 64
"""Length of the names that the hub's cache gives to large files: their SHA-256."""


class NotHereError(ModelNotFoundError):
    """A file is not in the hub's cache, and the hub is not asked or does not answer."""


@dataclass(frozen=True)
class FileState:
    """A file of a hub repository: how large it is there, and whether it is here."""

    num_bytes: int
    is_here: bool


def fetch(repo_id: str, revision: str | None, names: Iterable[str], local_files_only: bool) -> Path:
    """Download files of a hub repository into the shared cache, or find them there.

    Raises:
        ModelNotFoundError: no such repository or revision, or no access; NotHereError: no network.
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
    try:
        return translated(download, ModelNotFoundError, f"{wanted}: {where}")
    except ModelNotFoundError as error:
        cause = error.__cause__
        if local_files_only or type(cause).__name__ != "LocalEntryNotFoundError":
            raise
        assert cause is not None
        proxy = through_proxy(hub_constants().ENDPOINT)
        raise NotHereError(f"{wanted}: {where}: {_why_no_network(cause)}{proxy}") from error


def look_up(
    repo_id: str, name: str, revision: str | None = None, local_files_only: bool = False
) -> FileState:
    """Ask the hub, or without a network its cache, about a file without fetching it.

    Raises:
        ModelNotFoundError: no such repository, revision or file, no access, or not here while
            there is no network.
    """

    def look() -> Any:
        from huggingface_hub import hf_hub_download

        return hf_hub_download(
            repo_id, name, revision=revision, local_files_only=local_files_only, dry_run=True
        )

    found = _one_file(repo_id, name, look)
    return FileState(found.file_size or 0, found.is_cached)


def fetch_file(
    repo_id: str, name: str, revision: str | None = None, local_files_only: bool = False
) -> Path:
    """Fetch a file into the hub's cache, or find it there, and compare it with the hub's SHA-256.

    A connection that breaks is taken up where it broke. A file that is not what the hub promised
    is taken out of the cache.

    Raises:
        ModelNotFoundError: as for ``look_up``, or it broke off too often.
        CheckpointError: its bytes are not those of its SHA-256.
        OutputError: the cache cannot be written; DiskFullError: there is no room.
    """

    def download() -> Path:
        from huggingface_hub import hf_hub_download

        return Path(
            hf_hub_download(repo_id, name, revision=revision, local_files_only=local_files_only)
        )

    path = _one_file(repo_id, name, download)
    stored = path.resolve()
    promised = stored.name
    if len(promised) == SHA256_LETTERS and file_sha256(stored) != promised:
        for damaged in (path, stored):
            damaged.unlink(missing_ok=True)
        raise CheckpointError(
            f"{repo_id}: {name} has not the SHA-256 that the hub gives for it ({promised[:12]}…); "
            "the copy is deleted: fetch it again"
        )
    return path


def _one_file(repo_id: str, name: str, action: Callable[[], ResultT]) -> ResultT:
    constants = hub_constants()
    from huggingface_hub import errors

    page = f"{constants.ENDPOINT}/{repo_id}"
    try:
        return translated(action, ModelNotFoundError, f"{repo_id}: {name} cannot be fetched")
    except ModelNotFoundError as error:
        cause = error.__cause__
        if isinstance(cause, errors.GatedRepoError):
            raise ModelNotFoundError(
                f"{repo_id}: access to {name} must be granted: accept the terms on {page} and "
                "give a token (`hf auth login`, or HF_TOKEN)"
            ) from error
        if isinstance(cause, errors.RemoteEntryNotFoundError):
            raise ModelNotFoundError(f"{repo_id}: there is no file {name} on {page}") from error
        if isinstance(cause, errors.LocalEntryNotFoundError):
            why = _why_no_network(cause)
            raise NotHereError(
                f"{repo_id}: {name} is not in the local cache {constants.HF_HUB_CACHE}, and {why}"
                f"{through_proxy(constants.ENDPOINT)}"
            ) from error
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            raise DiskFullError(
                f"{constants.HF_HUB_CACHE}: the disk is full while {name} is fetched; make room, "
                "or set HF_HOME to a larger disk; files that are whole stay"
            ) from error
        if isinstance(cause, OSError) and cause.errno in _NOT_WRITABLE:
            raise OutputError(
                f"{constants.HF_HUB_CACHE}: {name} cannot be written ({cause.strerror}); "
                "set HF_HOME to a folder of yours"
            ) from error
        if "Consistency check failed" in str(cause):
            sizes = re.search(r"of size (\d+) but has size (\d+)", str(cause))
            told = f" ({sizes[2]} of {sizes[1]} bytes)" if sizes else ""
            raise ModelNotFoundError(
                f"{repo_id}: {name} came incomplete{told}: try again"
            ) from error
        raise


def _why_no_network(error: BaseException) -> str:
    """What kept the hub's library from asking: told to stay offline, or nobody answered."""
    constants = hub_constants()
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE forbids to fetch it"
    if error.__cause__ is None:
        return "it may not be fetched here"
    reason = " ".join(str(error.__cause__).split()) or type(error.__cause__).__name__
    return f"{constants.ENDPOINT} does not give it ({reason[:120]})"


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

    return translated(send, ResonateError, f"{repo_id}: cannot be sent to the hub")


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub's library from telling each of its tries: what fails is told once, by us."""
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def translated(action: Callable[[], ResultT], failure: type[ResonateError], prefix: str) -> ResultT:
    """Do something with the hub; whatever it raises becomes ``failure``, in one line.

    Raises:
        ResonateError: of the type ``failure``, beginning with ``prefix``.
    """
    from httpx2 import InvalidURL

    constants = hub_constants()
    from huggingface_hub import errors

    # The HTTP library under the hub changed between its major versions; this name did not.
    http_error: type[Exception] = getattr(errors, "HTTPError", OSError)
    try:
        with _quiet():
            return action()
    # RuntimeError: a user without a home, in which the cache would be.
    except (OSError, ValueError, ImportError, RuntimeError, InvalidURL, http_error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        proxy = through_proxy(constants.ENDPOINT)
        raise failure(f"{prefix} ({reason[:200]}){proxy}") from error
