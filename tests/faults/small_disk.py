"""A disk of a few megabytes, full when it is wanted so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REASON = "needs the right to mount a small file system (root on Linux)"


@contextmanager
def small_disk(place: Path, size: str = "6m") -> Iterator[Path]:
    """A file system of its own, of such a size, or the test is left out."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        pytest.skip(REASON)
    if done.returncode:
        pytest.skip(REASON)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def fill(folder: Path, leave: int = 0) -> Path:
    """Take all room that is left but so many bytes; gives the file that takes it."""
    path = folder / "everything-else"
    with path.open("ab") as file:
        step = 1_000_000
        while step >= 1:
            try:
                os.write(file.fileno(), bytes(step))
            except OSError:
                step //= 2
    if leave:
        os.truncate(path, max(0, path.stat().st_size - leave))
    return path
