"""SQLite files of a server: for its owner's eyes only, and still of use when the disk is full."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resonate_audio.core.errors import DiskFullError, OutputError
from resonate_audio.core.files import output_error

BALLAST_BYTES = 1_000_000
"""Room that is set aside and given up when the disk is full: SQLite writes some pages even to
delete, and more to give the room of what was deleted back to the disk."""
BALLAST_SHARE = 8
"""Of a small disk, no more than one part in so many."""
NO_ROOM_BYTES = 64_000
"""With less room than this an error in writing is put down to that."""


class DamagedError(OutputError):
    """A database cannot be read, or holds what is none of ours."""


@contextmanager
def told_errors(path: Path) -> Iterator[None]:
    """Say what went wrong with a database in one line.

    Raises:
        DiskFullError: there is no room left.
        DamagedError: it is no database, or damaged.
        OutputError: it is locked, of another form, or may not be written.
    """
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except OSError as error:
        raise output_error(path, error) from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL" or is_full(path.parent):
            raise DiskFullError(f"{path}: the disk is full; nothing was written") from error
        if isinstance(error, sqlite3.OperationalError):
            raise OutputError(f"{path}: cannot be used ({error})") from error
        raise DamagedError(f"{path}: cannot be used ({error})") from error


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder has no room left."""
    try:
        return shutil.disk_usage(folder).free < NO_ROOM_BYTES
    except OSError:
        return False


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner may look into; close one that is empty or was ours.

    A folder that holds other things keeps its rights: what is made in it is closed by itself.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    is_ours = all(name.startswith(("resonate.sqlite", "listening")) for name in os.listdir(folder))
    if is_ours and folder.stat().st_mode & 0o077:
        with suppress(OSError):  # another user's, who lets us write
            folder.chmod(0o700)


def private_file(path: Path) -> None:
    """Make a file, if need be, that only its owner may read.

    Raises:
        OSError: it cannot be made.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for one in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        with suppress(OSError):
            if one.stat().st_mode & 0o077:
                one.chmod(0o600)


class Ballast:
    """A file that only takes room, so that there is some when it is needed."""

    def __init__(self, path: Path) -> None:
        """Know where it lies; `fill` makes it."""
        self._path = path

    def fill(self) -> None:
        """Take the room, if it is not taken yet; a full disk is no error here."""
        with suppress(OSError):
            taken = self._path.stat().st_size if self._path.exists() else 0
            room = taken + shutil.disk_usage(self._path.parent).free
            wanted = min(room // BALLAST_SHARE, BALLAST_BYTES)
            if wanted > taken:
                handle = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.seek(taken)
                    file.write(bytes(wanted - taken))

    def drop(self) -> bool:
        """Give the room up; False if there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
