"""Reading of regular files alone, and writing that never leaves half a file."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath

from resonate_audio.core.errors import DiskFullError, OutputError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
"""No room on the disk, or none in the quota."""

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, unless it is a pipe, a socket or a device, which may never end.

    Raises:
        OSError: as for any file; with ``EINVAL`` where it is no regular file or its name cannot
            be one.
    """
    check_regular(path)
    return path.open("rb")


def file_sha256(path: Path) -> str:
    """SHA-256 of a regular file's bytes, in hexadecimal.

    Raises:
        OSError: as for `open_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_regular(path: Path) -> None:
    """Refuse what is there and is no regular file, before a library opens it by its name.

    Raises:
        OSError: nothing is there, it is a folder, or it is no regular file.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a NUL or half a character in the name
        raise OSError(errno.EINVAL, "no file can have such a name", ascii(str(path))) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder; expected a file", str(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise OSError(errno.EINVAL, f"it is {kind}; expected a regular file", str(path))


@contextmanager
def atomic_path(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` if the block succeeds.

    The temporary keeps the suffix, since writers choose their format by it. On any failure it
    is removed, so a reader sees the old file or the whole new one.

    Raises:
        OutputError: ``path`` exists and ``overwrite`` is false, its folder cannot be written,
            or the disk is full.
    """
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; pass --overwrite to replace it")
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None


def name_inside(name: str) -> str:
    """The name of a file as a list beside it may give it: relative, with forward slashes.

    Raises:
        ValueError: it leads out of the folder.
    """
    pure = PurePosixPath(name)
    if not name or "\0" in name or pure.is_absolute() or ".." in pure.parts:
        raise ValueError("expected the name of a file inside of this folder")
    return name


def file_inside(folder: Path, name: str) -> Path | None:
    """The regular file of a folder that a name in one of its own lists leads to.

    A folder that was copied from elsewhere may name ``../../secret`` or hold a link to it; neither
    leads anywhere.

    Returns:
        The file as it is found under ``folder``, or None if there is no such file in there.
    """
    path = folder / name
    try:
        name_inside(name)
        is_inside = path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long a name, a circle of links, bad signs
        return None
    return path if is_inside else None


def output_error(path: Path, error: OSError) -> OutputError:
    """Say in one line why ``path`` could not be written."""
    if error.errno in NO_ROOM:
        return DiskFullError(f"{path}: the disk is full; nothing was written")
    return OutputError(f"{path}: cannot write it ({error.strerror or error})")
