"""Writing that never leaves half a file: temporary name, flush, rename."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resonate_audio.core.errors import OutputError


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
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
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


def output_error(path: Path, error: OSError) -> OutputError:
    """Say in one line why ``path`` could not be written."""
    if error.errno == errno.ENOSPC:
        return OutputError(f"{path}: the disk is full; nothing was written")
    return OutputError(f"{path}: cannot write it ({error.strerror or error})")
