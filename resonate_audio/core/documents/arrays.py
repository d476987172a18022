"""Arrays of numbers in ``.npy`` files: mapped from disk or read from memory, never unpickled."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from resonate_audio.core.documents.text import ErrorType, one_line
from resonate_audio.core.errors import ManifestError
from resonate_audio.core.files import check_regular


def read_array(source: Path | bytes, place: str, error: ErrorType = ManifestError) -> Any:
    """The array of a ``.npy`` file; one on disk is mapped.

    Raises:
        ResonateError: of the type ``error``; it is truncated, no regular file, a zip, a pickle, or
            no array at all.
    """
    magic = b"\x93NUMPY"
    try:
        if isinstance(source, Path):
            check_regular(source)
            with source.open("rb") as file:
                start = file.read(len(magic))
        else:
            start = source[: len(magic)]
        if start != magic:
            raise ValueError("it does not begin as an array does")
        if isinstance(source, Path):
            return np.load(source, mmap_mode="r", allow_pickle=False)
        return np.load(io.BytesIO(source), allow_pickle=False)
    except OSError as failure:
        raise error(f"{place}: cannot read it ({failure.strerror or failure})") from failure
    except Exception as failure:  # a header is parsed as Python; it raises what that raises
        raise error(f"{place}: truncated or not a table ({one_line(failure)})") from failure
