"""From a published name to a model folder: say what it takes, fetch, convert once, keep."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from resonate_audio.core.errors import (
    CheckpointError,
    ConfigError,
    DiskFullError,
    InputError,
    ModelNotFoundError,
    OutputError,
)
from resonate_audio.core.files import existing_parent
from resonate_audio.model.folder import is_model_folder, writing_model
from resonate_audio.model.hub_client import (
    FileState,
    NotHereError,
    fetch_file,
    hub_constants,
    look_up,
)
from resonate_audio.model.official.convert import read_official
from resonate_audio.model.official.folder import Sources, find_sources, write_sources
from resonate_audio.model.published.names import HubFile, PublishedModel

SOURCES_NAME = "sources.json"
"""File of a ready folder that lists what it was made from."""
log = logging.getLogger("resonate.models")


@dataclass(frozen=True)
class Piece:
    """A published file, and how it stands."""

    file: HubFile
    state: FileState


def ready_folders() -> Path:
    """Where ready models are kept: ``resonate-audio`` in the hub's folder of assets.

    Raises:
        ConfigError: the hub's variables cannot be used.
    """
    return Path(hub_constants().HF_ASSETS_CACHE) / "resonate-audio" / "models"


def ready_folder(model: PublishedModel, revision: str | None = None) -> Path:
    """Where a model is kept once it is ready, whether or not it is."""
    at = "" if revision is None else f"@{revision.replace('/', '--')}"
    return ready_folders() / f"{model.name}{at}"


def provide(
    model: PublishedModel, revision: str | None = None, local_files_only: bool = False
) -> Path:
    """The ready folder of a published model; the first time it is fetched and converted.

    Of several processes that want it at once, one makes it and the others wait.

    Args:
        model: which one.
        revision: commit, branch or tag of the repository of its flow transformer.
        local_files_only: fetch nothing; pieces that lie in the hub's cache are converted.

    Raises:
        ModelNotFoundError: a piece cannot be fetched; the message names it.
        CheckpointError: a piece is damaged, or of another family than the name says.
        OutputError: the cache cannot be written; DiskFullError: there is no room.
    """
    folder = ready_folder(model, revision)
    if is_model_folder(folder):
        return folder
    with one_at_a_time(folder):
        if not is_model_folder(folder):
            make_folder(model, folder, revision, local_files_only)
    return folder


def copy_to(model: PublishedModel, folder: Path) -> Path:
    """Make a folder of a published model to carry to another machine; returns it.

    Raises:
        OutputError: ``folder`` is there already, or cannot be written.
        ModelNotFoundError: a piece cannot be fetched.
        CheckpointError: a piece is damaged, or of another family.
    """
    ready = ready_folder(model)
    if not is_model_folder(ready):
        make_folder(model, folder, None, local_files_only=False)
        return folder
    with writing_model(folder) as unfinished:
        shutil.copytree(ready, unfinished, dirs_exist_ok=True)
    return folder


def make_folder(
    model: PublishedModel, folder: Path, revision: str | None, local_files_only: bool
) -> None:
    """Fetch the pieces of a model and convert them into ``folder``, which appears whole.

    Raises:
        ModelNotFoundError: a piece cannot be fetched.
        CheckpointError: a piece is damaged, or of another family.
        OutputError: ``folder`` is there, or cannot be written; DiskFullError: there is no room.
    """
    if not local_files_only:
        foretell(model)
    pieces = survey(model, revision, local_files_only)
    announce(model, pieces, folder)
    check_room(model, pieces, folder)
    paths = {
        piece.file: fetch_file(
            piece.file.repo_id,
            piece.file.name,
            revision if piece.file == model.flow else None,
            local_files_only,
        )
        for piece in pieces
    }
    log.warning("%s: converting into %s", model.name, folder)
    with writing_model(folder) as unfinished:
        write_sources(described(model, paths), unfinished)
        record_sources(unfinished, paths)
    log.warning("%s: ready; the downloads stay in the hub's cache", model.name)


def described(model: PublishedModel, paths: Mapping[HubFile, Path]) -> Sources:
    """Fetched files as what a folder is made of, under the model's own name and licence.

    Raises:
        CheckpointError: a file is another network than its name says, or of another family.
    """
    flow = paths[model.flow]
    part, _ = read_official(flow, mapped=True)
    where = f"{model.name}: {model.flow.name} of {model.flow.repo_id}"
    if part != "transformer":
        raise CheckpointError(f"{where} holds a {part}, expected a flow transformer")
    networks = [paths[file] for file in model.of_part("network")]
    encoder = paths[model.of_part("text_encoder")[0]].parent
    clap = [paths[file] for kind in ("clap", "clap_tokenizer") for file in model.of_part(kind)]
    try:
        found = find_sources(networks, text_encoder=encoder, family=model.family)
    except (ConfigError, InputError) as error:
        raise CheckpointError(
            f"{where} is of another family than its name says ({error})"
        ) from error
    named = {"name": model.name, "licence": model.licence}
    pooled = (clap[0], clap[1]) if clap else None
    return replace(found, config=found.config.model_copy(update=named), pooled=pooled)


def survey(
    model: PublishedModel, revision: str | None = None, local_files_only: bool = False
) -> list[Piece]:
    """How every file of a model stands: its size on the hub, and whether it is here.

    Raises:
        ModelNotFoundError: names every piece that neither is here nor can be fetched.
    """
    pieces: list[Piece] = []
    problems: list[str] = []
    missing: list[str] = []
    for file in model.files:
        at = revision if file == model.flow else None
        is_local = local_files_only or bool(problems)  # who did not answer is not asked again
        try:
            pieces.append(Piece(file, look_up(file.repo_id, file.name, at, is_local)))
        except NotHereError as error:
            problems.append(str(error))
            missing.append(file.name)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"model {model.name}: {error}") from error
    if problems:
        others = f"; not here either: {', '.join(missing[1:])}" if missing[1:] else ""
        raise ModelNotFoundError(f"model {model.name}: {problems[0]}{others}")
    return pieces


def foretell(model: PublishedModel) -> None:
    """Say, before the hub is asked, what is not here: it may take long not to answer."""
    there = here(model)
    missing = [file for file in model.files if file not in there]
    parts = []
    for repo_id in dict.fromkeys(file.repo_id for file in missing):
        of_one = [file for file in missing if file.repo_id == repo_id]
        licences = ", ".join(dict.fromkeys(file.licence for file in of_one))
        parts.append(f"{size(sum(f.num_bytes for f in of_one))} from {repo_id} ({licences})")
    if parts:
        log.warning("%s: to fetch once: about %s", model.name, ", ".join(parts))


def announce(model: PublishedModel, pieces: Sequence[Piece], folder: Path) -> None:
    """Say what will be fetched, under which licences, and what it takes."""
    missing = [piece for piece in pieces if not piece.state.is_here]
    for repo_id in dict.fromkeys(piece.file.repo_id for piece in missing):
        of_one = [piece for piece in missing if piece.file.repo_id == repo_id]
        names = ", ".join(f"{p.file.name} ({size(p.state.num_bytes)})" for p in of_one)
        licences = ", ".join(dict.fromkeys(piece.file.licence for piece in of_one))
        log.warning("%s: fetching %s from %s, %s", model.name, names, repo_id, licences)
    log.warning(
        "%s: %s to fetch, %s for the ready model in %s; about %s of memory to run",
        model.name,
        size(sum(piece.state.num_bytes for piece in missing)),
        size(_ready_bytes(model, pieces)),
        folder,
        size(model.memory_bytes),
    )


def check_room(model: PublishedModel, pieces: Sequence[Piece], folder: Path) -> None:
    """Refuse to begin what the disks have no room for.

    Raises:
        DiskFullError: says how much is needed and how much is free.
        OutputError: the folder cannot be made.
    """
    missing = sum(piece.state.num_bytes for piece in pieces if not piece.state.is_here)
    cache = Path(hub_constants().HF_HUB_CACHE)
    by_disk: dict[int, tuple[Path, int]] = {}
    for place, num_bytes in ((cache, missing), (folder.parent, _ready_bytes(model, pieces))):
        disk = existing_parent(place).stat().st_dev
        by_disk[disk] = (place, num_bytes + by_disk.get(disk, (place, 0))[1])
    for place, num_bytes in by_disk.values():
        free = shutil.disk_usage(existing_parent(place)).free
        if num_bytes > free:
            raise DiskFullError(
                f"model {model.name}: needs {size(num_bytes)} in {place}, where {size(free)} are "
                "free; make room, or set HF_HOME to a larger disk"
            )


def _ready_bytes(model: PublishedModel, pieces: Sequence[Piece]) -> int:
    """Size that the ready folder will have: the files' own, in the proportion of the table."""
    published = sum(piece.file.num_bytes for piece in pieces)
    return round(sum(piece.state.num_bytes for piece in pieces) * model.num_bytes / published)


def record_sources(folder: Path, paths: Mapping[HubFile, Path]) -> None:
    """Write what a folder was made from, with the hub's own names for the contents."""
    entries = [
        asdict(file) | {"num_bytes": path.stat().st_size, "content": path.resolve().name}
        for file, path in paths.items()
    ]
    made = {"written_by": version("resonate-audio"), "files": entries}
    (folder / SOURCES_NAME).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def here(model: PublishedModel) -> list[HubFile]:
    """Those files of a model that lie in the hub's cache."""
    return [file for file in model.files if _cached(file) is not None]


def remove(model: PublishedModel, downloads: bool = False) -> int:
    """Delete the ready folder of a model, and with ``downloads`` its files in the hub's cache.

    Returns:
        Bytes that became free.

    Raises:
        OutputError: something cannot be deleted.
    """
    folder = ready_folder(model)
    freed = folder_bytes(folder)
    try:
        if folder.is_dir():
            shutil.rmtree(folder)
        for file in model.files if downloads else ():
            path = _cached(file)
            if path is not None:
                stored = path.resolve()
                freed += stored.stat().st_size
                path.unlink()
                stored.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{error.filename or folder}: cannot be deleted ({error.strerror})"
        ) from error
    return freed


def _cached(file: HubFile) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(file.repo_id, file.name)
    return Path(found) if isinstance(found, str) else None


def folder_bytes(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def size(num_bytes: int) -> str:
    """A number of bytes for people."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes / 1e3:.1f} kB"


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process make a folder while the others wait for it; half-made ones are cleared.

    Raises:
        OutputError: the place cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("%s: another process prepares it; waiting", folder.name)
            lock.acquire()
    except OSError as error:
        raise OutputError(
            f"{folder.parent}: cannot be written ({error.strerror or error}); "
            "set HF_HOME to a folder of yours"
        ) from error
    try:
        for left in folder.parent.glob(f".{folder.name}.*.part"):
            shutil.rmtree(left, ignore_errors=True)  # its process was killed: we hold the lock
        yield
    finally:
        lock.release()
