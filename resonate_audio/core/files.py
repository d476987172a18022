"""Reading of regular files alone, and writing that never leaves half a file."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path, PurePosixPath

from resonate_audio.core.errors import DiskFullError, OutputError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
"""No room on the disk, or none in the quota."""

LOCK = ".lock"
"""Name of the file in a folder that somebody works in."""
STEM_BYTES, SUFFIX_BYTES = 100, 24
"""What a temporary name keeps of the name that it stands for; file systems allow 255 bytes."""

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
    is removed, so a reader sees the old file or the whole new one. A link stays one: what it leads
    to is written.

    Raises:
        OutputError: ``path`` exists and ``overwrite`` is false, even if another process made it
            meanwhile; it is no regular file; its folder cannot be written; or the disk is full.
    """
    target = check_target(path, overwrite)
    temporary = temporary_path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target) if overwrite else _place_new(temporary, target)
    except FileExistsError as error:
        raise _is_there(path) if target.is_file() else output_error(path, error) from error
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_target(path: Path, overwrite: bool) -> Path:
    """The file that writing to a path would make or replace: what it leads to, if it is a link.

    Raises:
        OutputError: it exists and may not be replaced, or is a folder, a pipe or a device.
    """
    try:
        target = Path(os.path.realpath(path))
        check_regular(target)
    except ValueError as error:
        raise output_error(path, error) from error
    except (FileNotFoundError, NotADirectoryError):
        return target
    except IsADirectoryError as error:
        raise OutputError(f"{path}: is a folder, expected a file name") from error
    except OSError as error:
        raise output_error(path, error) from error
    if not overwrite:
        raise _is_there(path)
    return target


def temporary_path(path: Path) -> Path:
    """A new name beside ``path``, with its suffix, and no longer than a name may be."""
    stem = path.stem.encode(errors="ignore")[:STEM_BYTES].decode(errors="ignore")
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= SUFFIX_BYTES else ""
    return path.with_name(f".{stem}.{secrets.token_hex(4)}.part{suffix}")


def _place_new(temporary: Path, target: Path) -> None:
    """Give a file its name, unless there is one of that name: the first of two processes wins."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        temporary.replace(target)


def _is_there(path: Path) -> OutputError:
    return OutputError(f"{path}: exists already; pass --overwrite to replace it")


def append_text(path: Path, text: str) -> None:
    """Add lines to a file, whole or not at all, and come back when they are on the disk.

    Raises:
        OutputError: it cannot be written, or the disk is full; the file is as it was.
    """
    try:
        with path.open("ab") as file:
            size = file.tell()
            try:
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.truncate(path, size)
                raise
    except (OSError, ValueError) as error:
        raise output_error(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder, and those around it, unless it is there.

    Raises:
        OutputError: it cannot be made, or a file is in its place.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"{path}: is a file, expected a folder") from error
    except (OSError, ValueError) as error:
        raise output_error(path, error) from error


@contextmanager
def alone_in(folder: Path, lock: str = LOCK, wait: bool = False) -> Iterator[None]:
    """Work in a folder that nobody else works in, made if need be.

    The lock is the system's, so that it ends with its process, however that ends; its file says
    who holds it.

    Args:
        folder: where the work is.
        lock: name of the file; who takes another one works beside.
        wait: wait until the other has ended, for work that is short.

    Raises:
        OutputError: another process holds it, which is named; or the folder cannot be made.
    """
    make_folder(folder)
    handle = _locked(folder / lock, wait)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(folder / lock)
        if handle is not None:
            os.close(handle)


def _locked(path: Path, wait: bool) -> int | None:
    """The handle of a lock file that is ours, or None on a file system without locks."""
    try:
        import fcntl
    except ImportError:  # no POSIX
        return None
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise output_error(path, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            holder = os.pread(handle, 200, 0).decode("utf-8", "replace").strip()
            os.close(handle)
            raise OutputError(
                f"{path.parent}: {holder or 'another process'} is at work in it; wait for it, end "
                "it, or choose another folder"
            ) from error
        except OSError:
            return handle
        with suppress(OSError):
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                break
        os.close(handle)  # who held it has ended and taken the file away meanwhile
    with suppress(OSError):  # a full disk does not unlock it
        os.truncate(handle, 0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.pwrite(handle, f"process {os.getpid()} on {platform.node()}, since {since}".encode(), 0)
    return handle


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


def existing_parent(path: Path) -> Path:
    """A path, or the nearest of its parents that exists: a cache never used has no folder yet."""
    while not path.exists():
        path = path.parent
    return path


def output_error(path: Path, error: OSError | ValueError) -> OutputError:
    """Say in one line why ``path`` could not be written."""
    if isinstance(error, ValueError):  # a NUL or half a character in the name
        return OutputError(f"{str(path)!a}: no file can have such a name")
    if error.errno in NO_ROOM:
        return DiskFullError(f"{path}: the disk is full; nothing was written")
    return OutputError(f"{path}: cannot write it ({error.strerror or error})")
